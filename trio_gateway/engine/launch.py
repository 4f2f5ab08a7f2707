"""Launch: how one engine is started and reached: its address, its key, its command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from secrets import token_urlsafe
from typing import Protocol

import msgspec
import trio

from trio_gateway.config.engine_key import (
    EngineKey,
    KeyPlace,
    configured_key,
    inherited_key,
    is_sendable,
    key_file,
    key_of_file,
)
from trio_gateway.config.engine_types import EngineType
from trio_gateway.config.schema import EngineOptions, Secret, VariantConfig
from trio_gateway.engine.address import AddressUnusable, hold_address, remote_client, url_of
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.health import HealthRecord, RefusedAtStart
from trio_gateway.engine.kv.slots import EngineKv
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.no_process import open_nothing
from trio_gateway.engine.process.process import Launcher, Process
from trio_gateway.environment import inherited

KEY_BYTES = 32
_NO_KEY = EngineKey(KeyPlace.NONE)


class Elsewhere(Protocol):
    """Where an engine runs that is no process of this machine, and yet is started and stopped."""

    async def open_client(self, kind: EngineKind, options: EngineOptions) -> EngineClient:
        """What speaks to it, which may be before it is there.

        Raises:
            StartFailed: nothing can be started there.
            OSError: a file that the options name cannot be used.
        """
        ...

    def open(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AbstractAsyncContextManager[Process]:
        """A Launcher. What is started is its own affair: it gets no command. Raises StartFailed."""
        ...


class Launch:
    """Of one engine. `open_client` first, then the rest; `let_go` in any case.

    Args:
        secrets: variables that engines do not inherit.
        elsewhere: where it runs, if not here.

    `port`: of this machine, held for this engine. `key`: what is sent to it, and where that is.
    """

    def __init__(
        self,
        variant: VariantConfig,
        engine_type: EngineType,
        kind: EngineKind,
        launcher: Launcher,
        ports_in_use: set[int],
        secrets: Collection[str],
        kv: EngineKv | None,
        log: logging.Logger,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._variant, self._type, self._kind = variant, engine_type, kind
        self._elsewhere = elsewhere
        if elsewhere is not None:
            self._launcher: Launcher = elsewhere.open
        else:
            self._launcher = launcher if variant.has_process else open_nothing
        self._ports_in_use, self._secrets, self._kv, self._log = ports_in_use, secrets, kv, log
        self._key_variables: dict[str, str] = {}
        self.port: int | None = None
        self.key = _NO_KEY

    async def open_client(self) -> EngineClient:
        """The client for the engine's address, which nobody else may hold, with its key.

        Raises:
            AddressUnusable, StartFailed
        """
        self.key = await self._find_key()
        if self.key.secret is not None and not is_sendable(self.key.secret.reveal()):
            raise AddressUnusable(f"no header can carry its key, {self.key}")
        if self._elsewhere is not None:
            return await self._client_at(self._elsewhere)
        if not self._variant.has_process:
            return remote_client(self._variant, self._kind)
        host, self.port = await hold_address(self._variant, self._kind, self._ports_in_use)
        options = msgspec.structs.replace(self._variant.options, api_key=self.key.secret)
        prefix = self._kind.path_prefix(self._variant.engine_args)
        return self._kind.client(f"{url_of(host, self.port)}{prefix}", options)

    async def _client_at(self, elsewhere: Elsewhere) -> EngineClient:
        options = msgspec.structs.replace(self._variant.options, api_key=self.key.secret)
        try:
            return await elsewhere.open_client(self._kind, options)
        except OSError as error:
            reason = f"its `ca_file` {options.ca_file} cannot be used: {error}"
            raise AddressUnusable(reason) from None

    def let_go(self) -> None:
        """Others may have its port."""
        if self.port is not None:
            self._ports_in_use.discard(self.port)

    # -- its key ---------------------------------------------------------------------------------

    async def _find_key(self) -> EngineKey:
        """As configured or inherited; otherwise one is made for this start, where such engines take
        one. What they take it from is set to it, unless their arguments have it."""
        variables = self._type.key_variables
        found = configured_key(self._variant, variables) or await self._read_key_file()
        if found is None:
            found = inherited_key(inherited(self._secrets, self._variant.inherits), variables)
        if found is None and variables and not any(v in self._variant.env for v in variables):
            found = EngineKey(KeyPlace.MADE, Secret(token_urlsafe(KEY_BYTES)), variables[0])
        if found is None or found.secret is None:
            return _NO_KEY
        if found.place not in (KeyPlace.ARGS, KeyPlace.ENV_IN_ARGS, KeyPlace.FILE):
            self._key_variables = dict.fromkeys(variables, found.secret.reveal())
        return found

    async def _read_key_file(self) -> EngineKey | None:
        """One that cannot be read says nothing: the engine itself will say so."""
        name = key_file(self._variant)
        if name is None:
            return None
        path = self._variant.workdir / name
        try:
            text = await trio.to_thread.run_sync(path.read_text, abandon_on_cancel=True)
        except (OSError, UnicodeDecodeError):
            return _NO_KEY
        return key_of_file(text) or _NO_KEY

    def withdraw_key(self, client: EngineClient) -> bool:
        """Go on without the key that was made for this start, which the engine has refused: one
        that takes none from its environment may serve without. False: none was made."""
        if self.key.place is not KeyPlace.MADE:
            return False
        self.key = _NO_KEY
        client.forget_key()
        return True

    async def until_good(
        self, health: HealthRecord, client: EngineClient, refusal: Callable[[int], str]
    ) -> None:
        """Until it is healthy, without the key that was made for it if it refuses that.

        Raises:
            StartFailed: it wants another key; `refusal` says so for an HTTP status.
        """
        while True:
            try:
                return await health.until_good()
            except RefusedAtStart as refused:
                if not self.withdraw_key(client):
                    raise StartFailed(refusal(refused.status)) from None

    # -- its command -----------------------------------------------------------------------------

    def argv(self, client: EngineClient) -> list[str]:
        """Its command; empty for one without a process."""
        variant = self._variant
        if not variant.has_process:
            return []
        args = variant.args if self._kv is None else self._kv.launch_args(variant.args)
        if variant.connect is None:
            return [variant.binary, *self._kind.launch_args(args, client.host, client.port)]
        return [variant.binary, *(a.replace("${PORT}", str(client.port)) for a in args)]

    def launched(
        self, argv: list[str], client: EngineClient
    ) -> AbstractAsyncContextManager[Process]:
        """A process with the engine's environment, for as long as a block runs."""
        variant, port = self._variant, str(client.port)
        env = inherited(self._secrets, variant.inherits)
        env |= {name: value.replace("${PORT}", port) for name, value in variant.env.items()}
        env |= self._key_variables
        return self._launcher(argv, env=env, workdir=variant.workdir, log=self._log)
