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
from trio_gateway.engine.engine_client import EngineClient
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
from trio_gateway.engine.http_exchange import EngineDisconnected

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


class Engine:
    """One engine. `client` is there from its start on, `info` once it is ready."""

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
        self.number, self.key, self.variant = number, key, variant
        self.info: EngineInfo | None = None
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self._launch, self._client_type, self._ports_in_use = launch, client_type, ports_in_use
        host, port, self._picked = self._address()
        # The pool of ports is one for all engines: none is picked twice while in use.
        ports_in_use.add(port)
        self.client = client_type(f"http://{host}:{port}")
        self._stop_wanted = trio.Event()
        self.gone = trio.Event()
        self.epitaph = "the engine was stopped"  # what a request that loses it is told
        self.log = logging.getLogger(f"{LOGGER_PREFIX}{key}")

    def __repr__(self) -> str:
        return f"<Engine {self.number} {self.key} at {self.client.base_url}>"

    def _address(self) -> tuple[str, int, bool]:
        if self.variant.connect is not None:
            parts = urlsplit(self.variant.connect)
            return parts.hostname or "127.0.0.1", parts.port or 80, False
        fixed = self._client_type.fixed_address(self.variant.args)
        if fixed is not None:
            return *fixed, False
        return "127.0.0.1", platform.pick_free_port(self._ports_in_use), True

    def stop(self) -> None:
        """Ask for its end; `run` does it."""
        self._stop_wanted.set()

    async def run(self, report: Callable[[Event], None]) -> None:
        """Run the engine until it is stopped or gone. The last event says which."""
        last: Event = EngineExited(self.number)
        try:
            await self._run(report)
        except (_StartFailed, EngineSpawnError) as error:
            log.error("%s did not start: %s", self.key, error)
            timed_out = isinstance(error, _StartFailed) and error.timed_out
            last = EngineFailed(self.number, str(error), timed_out)
        finally:
            self._ports_in_use.discard(self.client.port)
            self.gone.set()
            self.client.abort_all(EngineDisconnected(self.epitaph))
            # Closes sockets without waiting for anybody; shielded so that none is left open.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await self.client.aclose()
        report(last)

    async def _run(self, report: Callable[[Event], None]) -> None:
        client, variant = self.client, self.variant
        if platform.address_in_use(client.host, client.port):
            raise _StartFailed(self._port_taken())
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
                await self._end(process)
        if failure is not None:
            raise failure  # out here, where no nursery wraps it into a group

    async def _end(self, process: Process) -> None:
        """Stop it as asked; or say how it ended by itself."""
        if not self._stop_wanted.is_set():
            self.epitaph = f"the engine {process.status}{_tail(process)}"
            log.error("%s (pid %d): %s", self.key, process.pid, self.epitaph)
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
                f"the engine was not ready within {limit_s:g} s (engine_startup_timeout)"
                + _tail(process),
                timed_out=True,
            )
        if self._stop_wanted.is_set():
            return False
        if process.owns_port(self.client.port) is False:
            raise _StartFailed(self._port_taken())
        return True

    async def _healthy(self) -> None:
        """Returns at the first 200 of the health endpoint."""
        begun = trio.current_time()
        say_next_s = SAY_LOADING_S
        while True:
            health = await self.client.check_health(self.variant.timeouts.health_check_s)
            if health.ok:
                return
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

    def _port_taken(self) -> str:
        holder = platform.describe_port_holder(self.client.port)
        return (
            f"port {self.client.port} is held by {holder}, so {self.key} cannot listen there; "
            "end that process, or give the variant another address (connect)"
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
