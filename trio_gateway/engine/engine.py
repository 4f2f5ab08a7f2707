"""Engine: the life of one engine, from the decision to start it until its process is gone.

One task runs `Engine.run`. What happens is reported as the scheduler's events; the task never
decides: it starts, watches, and stops when it is told to.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import trio

from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine import platform
from trio_gateway.engine.engine_client import EngineClient, local_host
from trio_gateway.engine.engine_process import (
    LOGGER_PREFIX,
    EngineSpawnError,
    StopReport,
)
from trio_gateway.engine.events import (
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    VariantKey,
)
from trio_gateway.engine.http_exchange import EngineDisconnected, ExchangeAborted

log = logging.getLogger(__name__)

# Health is polled at 5 % of the time waited so far, within these limits: a model that loads in
# 0.5 s is noticed 12 ms late on average, one that takes a minute costs four requests a second.
POLL_MIN_S = 0.01
POLL_MAX_S = 0.25
POLL_SHARE = 0.05
SAY_LOADING_S = 10.0  # a long load says so this often
LINES_IN_ERROR = 15
DEFAULT_PLACES = 1


class Process(Protocol):
    """What an engine needs of its process. EngineProcess, or a fake in a test."""

    exited: trio.Event

    @property
    def pid(self) -> int: ...
    @property
    def status(self) -> str: ...
    def last_lines(self, count: int = ...) -> list[str]: ...
    def owns_port(self, port: int) -> bool | None: ...
    async def stop(self, timeout_s: float) -> StopReport: ...


class Launcher(Protocol):
    """Opens a process for as long as a block runs: `open_engine_process` without its reaper."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AbstractAsyncContextManager[Process]: ...


class _StartFailed(Exception):
    """The engine does not come up; the text is for the client."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class EngineInfo(msgspec.Struct, frozen=True):
    """A ready engine, for pages and headers."""

    pid: int
    places: int
    context: int
    load_s: float


def fixed_address(
    variant: VariantConfig, client_type: type[EngineClient]
) -> tuple[str, int] | None:
    """Where the configuration puts this variant's engine; None: the gateway picks a port."""
    if variant.connect is None:
        return client_type.fixed_address(variant.args)
    parts = urlsplit(variant.connect)
    return local_host(parts.hostname or ""), parts.port or 80


class Engine:
    """One engine. `client` is there once it starts, `info` once it is ready."""

    def __init__(
        self,
        number: int,
        key: VariantKey,
        variant: VariantConfig,
        *,
        launch: Launcher,
        client_type: type[EngineClient],
        ports_in_use: set[int],
    ) -> None:
        # Nothing here can fail: the scheduler counts this engine already, and only `run` reports.
        self.number, self.key, self.variant = number, key, variant
        self.info: EngineInfo | None = None
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self._launch, self._client_type, self._ports_in_use = launch, client_type, ports_in_use
        self._client: EngineClient | None = None
        self._stop_wanted = trio.Event()
        self.gone = trio.Event()
        self.epitaph = "the engine was stopped"  # what a request that loses it is told
        self._process: Process | None = None
        self._last_health = "no answer"
        self.log = logging.getLogger(f"{LOGGER_PREFIX}{key}")

    def __repr__(self) -> str:
        return f"<Engine {self.number} {self.key}>"

    @property
    def client(self) -> EngineClient:
        assert self._client is not None, "a lease is granted only once the engine is ready"
        return self._client

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def port(self) -> int | None:
        return self._client.port if self._client is not None else None

    @property
    def last_words(self) -> str:
        """Its last lines of output, as an error message ends with them."""
        return _tail(self._process) if self._process is not None else ""

    def stop(self) -> None:
        """Ask for its end; `run` does it."""
        self._stop_wanted.set()

    def abort(self, error: ExchangeAborted | EngineDisconnected) -> None:
        """End every request that is under way at it; each gets this error."""
        if self._client is not None:
            self._client.abort_all(error)

    async def run(self, report: Callable[[Event], None]) -> None:
        """Run the engine until it is stopped or gone. The last event says which."""
        try:
            try:
                await self._run(report)
            except (_StartFailed, EngineSpawnError) as error:
                log.error("%s did not start: %s", self.key, error)
                timed_out = isinstance(error, _StartFailed) and error.timed_out
                self._finish(report, EngineFailed(self.number, str(error), timed_out))
            except Exception as error:
                # What one engine meets, a bug of ours included, must not end all the others.
                log.exception("%s: a bug in the gateway; please report it", self.key)
                ready = self.info is not None
                failed = EngineFailed(self.number, f"a bug in the gateway: {error!r}")
                self._finish(report, EngineExited(self.number) if ready else failed)
            else:
                self._finish(report, EngineExited(self.number))
        finally:
            self._let_go()
            if self._client is not None:
                # Closes sockets without waiting for anybody; shielded so that none is left open.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._client.aclose()

    def _finish(self, report: Callable[[Event], None], last: Event) -> None:
        """Report the end, once."""
        if not self.gone.is_set():
            self._let_go()
            report(last)

    def _let_go(self) -> None:
        if self.gone.is_set():
            return  # the port may be a successor's by now
        self.gone.set()
        self.abort(EngineDisconnected(self.epitaph))
        if self._client is not None:
            self._ports_in_use.discard(self._client.port)

    async def _open_client(self) -> EngineClient:
        """The client for the engine's address, which nobody else may hold."""
        address = fixed_address(self.variant, self._client_type)
        try:
            if address is None:
                host = self._client_type.listen_host(self.variant.args)
                address = host, platform.pick_free_port(self._ports_in_use, host)
            host, port = address
            in_use = await platform.address_in_use(host, port)
        except (OSError, UnicodeError) as error:
            reason = f"its address cannot be used: {error}; check `connect`, or --host in `args`"
            raise _StartFailed(reason) from None
        if in_use:
            raise _StartFailed(self._port_taken(port))
        # The picked ports are one set for all engines: none is picked twice while in use.
        self._ports_in_use.add(port)
        return self._client_type(
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        )

    async def _run(self, report: Callable[[Event], None]) -> None:
        variant = self.variant
        client = self._client = await self._open_client()
        args = list(variant.args)
        if variant.connect is None:
            args = client.launch_args(args, client.host, client.port)
        else:
            args = [a.replace("${PORT}", str(client.port)) for a in args]
        log.info("%s: starting at %s", self.key, client.base_url)
        failure: _StartFailed | None = None
        async with self._launch(
            [variant.binary, *args], env=variant.env, workdir=variant.workdir, log=self.log
        ) as process:
            self._process = process
            try:
                if await self._until_ready(process):
                    self.info = await self._facts(process)
                    self.ready_at = trio.current_time()
                    self._say_ready(self.info)
                    report(EngineReady(self.number, self.info.places, self.info.context))
                    await _first(self._stop_wanted.wait, process.exited.wait)
            except _StartFailed as error:
                failure = error
                await process.stop(variant.timeouts.stop_s)
            else:
                await self._end(process, report)
        if failure is not None:
            raise failure  # out here, where no nursery wraps it into a group

    async def _end(self, process: Process, report: Callable[[Event], None]) -> None:
        """Stop it as asked; or say how it ended by itself."""
        if not self._stop_wanted.is_set():
            self.epitaph = f"the engine {process.status}{_tail(process)}"
            log.error("%s (pid %d): %s", self.key, process.pid, self.epitaph)
            # At once: its pipe may be held open by a helper for a while yet.
            self._finish(report, EngineExited(self.number))
            return
        stopped = await process.stop(self.variant.timeouts.stop_s)
        took_ms = round(stopped.took_s * 1000)
        log.info("%s (pid %d) %s in %d ms", self.key, process.pid, stopped.ending.value, took_ms)

    async def _until_ready(self, process: Process) -> bool:
        """True once it is ready, False if its stop was wanted first."""
        limit_s = self.variant.timeouts.startup_s
        with trio.move_on_after(limit_s) as limit:
            await _first(process.exited.wait, self._stop_wanted.wait, self._healthy)
        if process.exited.is_set() and not self._stop_wanted.is_set():
            raise _StartFailed(f"the engine {process.status} while starting{_tail(process)}")
        if limit.cancelled_caught:
            raise _StartFailed(
                f"the engine was not ready within {limit_s:g} s (engine_startup_timeout); its "
                f"health endpoint: {self._last_health}{_tail(process)}",
                timed_out=True,
            )
        if self._stop_wanted.is_set():
            return False
        if process.owns_port(self.client.port) is False:
            raise _StartFailed(self._port_taken(self.client.port))
        return True

    async def _healthy(self) -> None:
        """Returns at the first 200 of the health endpoint."""
        begun = trio.current_time()
        say_next_s = SAY_LOADING_S
        while True:
            health = await self.client.check_health(self.variant.timeouts.health_check_s)
            if health.ok:
                return
            self._last_health = health.detail
            waited = trio.current_time() - begun
            if waited >= say_next_s:
                limit_s = self.variant.timeouts.startup_s
                log.info("%s: loading for %.0f of at most %g s", self.key, waited, limit_s)
                say_next_s += SAY_LOADING_S
            await trio.sleep(min(max(waited * POLL_SHARE, POLL_MIN_S), POLL_MAX_S))

    async def _facts(self, process: Process) -> EngineInfo:
        facts = await self.client.read_facts(self.variant.timeouts.health_check_s)
        declared = self.variant.context
        context = min(declared, facts.context or declared)
        if context < declared:
            log.error(
                "%s declares a context of %d tokens, but one request gets %d of it: raise the "
                "engine's context argument (-c) or lower its slots (-np); %d is used",
                self.key, declared, context, context,
            )  # fmt: skip
        places = self.variant.parallel or facts.places or DEFAULT_PLACES
        return EngineInfo(process.pid, places, context, trio.current_time() - self.started_at)

    def _say_ready(self, info: EngineInfo) -> None:
        log.info(
            "%s: ready in %.2f s (pid %d, %s, context %d, %d at a time)",
            self.key, info.load_s, info.pid, self.client.base_url, info.context, info.places,
        )  # fmt: skip

    def _port_taken(self, port: int) -> str:
        return (
            f"port {port} is held by {platform.describe_port_holder(port)}, so {self.key} cannot "
            "listen there; end that process, or give the variant another address (connect)"
        )


def _tail(process: Process) -> str:
    lines = process.last_lines(LINES_IN_ERROR)
    return "; its last lines:\n" + "\n".join(lines) if lines else ""


async def _first(*waits: Callable[[], Awaitable[None]]) -> None:
    """Returns when the first of them does; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel(reason="another wait ended first")

        for wait in waits:
            nursery.start_soon(run, wait)
