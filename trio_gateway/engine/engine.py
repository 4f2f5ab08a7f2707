"""Engine: the life of one engine, from the decision to start it until its process is gone.

One task runs `Engine.run`. What happens is reported as the scheduler's events; the task never
decides: it starts, watches, and stops when it is told to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import msgspec
import trio

from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind, local_host
from trio_gateway.engine.errors import (
    OWN_LIMITS,
    EngineDisconnected,
    ExchangeAborted,
    out_of_sockets,
)
from trio_gateway.engine.health import HealthRecord
from trio_gateway.engine.kv.slots import EngineKv
from trio_gateway.engine.process import ports
from trio_gateway.engine.process.no_process import open_nothing
from trio_gateway.engine.process.process import (
    LOGGER_PREFIX,
    EngineSpawnError,
    Launcher,
    Process,
    StopReport,
)
from trio_gateway.engine.process.stop_command import (
    LIMIT_SHARE,
    run_stop_command,
    stop_command,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Event,
    VariantKey,
)
from trio_gateway.tasks import first_of

log = logging.getLogger(__name__)

# A predecessor's helper that was killed a moment ago may hold the port for an instant yet.
PORT_FREE_S = 1.0
PORT_POLL_S = 0.01
# A crash breaks the engine's connections a moment before its exit is seen.
EXIT_NEWS_S = 0.25
# The request that it was started for goes first.
MEASURE_FIRST_S = 1.0
LINES_IN_ERROR = 15
DEFAULT_PLACES = 1


class _StartFailed(Exception):
    """The engine does not come up; the text is for the client."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class EngineInfo(msgspec.Struct, frozen=True):
    """A ready engine, for pages and headers. `pid` None: it runs elsewhere."""

    pid: int | None
    places: int
    context: int
    load_s: float
    shared_tokens: int | None = None


def fixed_address(variant: VariantConfig, kind: EngineKind) -> tuple[str, int] | None:
    """Where the configuration puts this variant's engine; None: the gateway picks a port."""
    if variant.connect is None:
        return kind.fixed_address(variant.args)
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
        kind: EngineKind,
        ports_in_use: set[int],
        memory_of_group: Callable[[int], int | None] | None,
        kv: EngineKv | None = None,
    ) -> None:
        # Nothing here can fail: the scheduler counts this engine already, and only `run` reports.
        self.number, self.key, self.variant = number, key, variant
        self.info: EngineInfo | None = None
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self._launch = launch if variant.has_process else open_nothing
        self._kind, self._ports_in_use = kind, ports_in_use
        self._port: int | None = None  # of this machine, held for this engine
        self._memory_of_group = memory_of_group
        self.kv = kv
        self._may_restore = True
        self._client: EngineClient | None = None
        self._stop_wanted = trio.Event()
        self.gone = trio.Event()
        self.epitaph = "the engine was stopped"  # what a request that loses it is told
        self._process: Process | None = None
        self._health: HealthRecord | None = None
        self._lost: str | None = None  # why it must be given up although its process is there
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
        return self._port

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
                end = EngineExited if ready else EngineFailed
                self.epitaph = f"a bug in the gateway: {error!r}"
                self._finish(report, end(self.number, self.epitaph))
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
        if self._port is not None:
            self._ports_in_use.discard(self._port)

    async def _open_client(self) -> EngineClient:
        """The client for the engine's address, which nobody else may hold."""
        if not self.variant.has_process:
            return self._open_remote_client()
        address = fixed_address(self.variant, self._kind)
        try:
            if address is None:
                host = self._kind.listen_host(self.variant.args)
                address = host, ports.pick_free_port(self._ports_in_use, host)
            host, port = address
            in_use = await ports.address_in_use(host, port)
            free_by = trio.current_time() + PORT_FREE_S
            while in_use and trio.current_time() < free_by:
                await trio.sleep(PORT_POLL_S)
                in_use = await ports.address_in_use(host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in OWN_LIMITS:
                raise _StartFailed(out_of_sockets(error)) from None
            reason = f"its address cannot be used: {error}; check `connect`, or --host in `args`"
            raise _StartFailed(reason) from None
        if in_use:
            raise _StartFailed(self._port_taken(port))
        # The picked ports are one set for all engines: none is picked twice while in use.
        self._port = port
        self._ports_in_use.add(port)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self._kind.client(url, self.variant.options)

    def _open_remote_client(self) -> EngineClient:
        options = self.variant.options
        try:
            return self._kind.client(options.urls[0], options)
        except OSError as error:
            raise _StartFailed(f"its `ca_file` {options.ca_file} cannot be used: {error}") from None

    async def _run(self, report: Callable[[Event], None]) -> None:
        client = self._client = await self._open_client()
        argv = [self.variant.binary, *self._args(client)] if self.variant.has_process else []
        log.info("%s: starting at %s", self.key, client.base_url)
        while await self._run_process(client, argv, report):
            log.warning("%s: starting again, without a restore", self.key)
            self._may_restore = False

    def _args(self, client: EngineClient) -> list[str]:
        args = self.variant.args if self.kv is None else self.kv.launch_args(self.variant.args)
        if self.variant.connect is None:
            return self._kind.launch_args(args, client.host, client.port)
        return [a.replace("${PORT}", str(client.port)) for a in args]

    async def _run_process(
        self, client: EngineClient, argv: list[str], report: Callable[[Event], None]
    ) -> bool:
        """One process, from its start to its end; whether to start another, as it only did not
        get over a restore."""
        variant = self.variant
        failure: _StartFailed | None = None
        env = _filled_in(variant.env, client.port)
        async with self._launch(argv, env=env, workdir=variant.workdir, log=self.log) as process:
            self._process = process
            in_order = False
            try:
                if await self._serve(process, client, report):
                    in_order = True
                    return True
                await self._end(process, report)
                in_order = True
            except _StartFailed as error:
                failure = error
                await self._stop(process, variant.timeouts.stop_s)
                in_order = True
            finally:
                if variant.stop_command and not in_order:
                    log.warning("%s: killed at once, not by its stop_command", self.key)
        if failure is not None:
            raise failure  # out here, where no nursery wraps it into a group
        return False

    async def _serve(
        self, process: Process, client: EngineClient, report: Callable[[Event], None]
    ) -> bool:
        """Until there is a reason to end it; true if that is a restore it did not get over."""
        if not await self._until_ready(process):
            return False
        facts = await client.read_facts(self.variant.timeouts.health_check_s)
        info = self._info(process, facts)
        if await self._restore_kills(process, facts, info):
            return True
        if self._stop_wanted.is_set():
            return False
        self.info = info
        self.ready_at = trio.current_time()
        self._say_ready(info)
        report(EngineReady(self.number, info.places, info.context, info.shared_tokens))
        await first_of(
            self._stop_wanted.wait,
            process.exited.wait,
            self._watch,
            self._until_refusing,
            partial(self._measure, process, report),
        )
        return False

    async def _restore_kills(self, process: Process, facts: EngineFacts, info: EngineInfo) -> bool:
        """Restore saved KV caches before the first request; whether the engine ended meanwhile."""
        if self.kv is None or not self._may_restore:
            return False
        restore = partial(
            self.kv.restore, self.client, facts, info.context, info.places, info.shared_tokens
        )
        await first_of(process.exited.wait, self._stop_wanted.wait, restore)
        if self._stop_wanted.is_set():
            return False
        if self.kv.in_doubt:
            with trio.move_on_after(EXIT_NEWS_S):
                await process.exited.wait()
        ended = process.exited.is_set()
        await self.kv.settle(ended=ended)
        return ended

    async def _end(self, process: Process, report: Callable[[Event], None]) -> None:
        """Stop it as asked; or say how it ended by itself, or why it is given up."""
        if process.exited.is_set() or self._lost is not None:
            reason = f"the engine {process.status}" if process.exited.is_set() else self._lost
            self.epitaph = f"{reason}{_tail(process)}"
            log.error("%s (%s): %s", self.key, _pid(process), self.epitaph)
            if not process.exited.is_set():
                self.abort(EngineDisconnected(self.epitaph))
                # Not asked to end: that would wake a stopped engine, and it might write on.
                await process.kill()
            await self._run_stop_command(process, self.variant.timeouts.stop_s)
            # At once: its pipe may be held open by a helper for a while yet.
            self._finish(report, EngineExited(self.number, self.epitaph))
            return
        stop_s = self.variant.timeouts.stop_s
        begun = trio.current_time()
        if self.kv is not None and self.info is not None:
            await self.kv.save(self.client)
        spent_s = trio.current_time() - begun
        begun = trio.current_time()
        stopped = await self._stop(process, max(stop_s - spent_s, stop_s / 2))
        took_ms = round((trio.current_time() - begun) * 1000)
        log.info("%s (%s) %s in %d ms", self.key, _pid(process), stopped.ending.value, took_ms)

    async def _stop(self, process: Process, limit_s: float) -> StopReport:
        """The `stop_command`, if there is one, then SIGTERM, and SIGKILL after `limit_s`."""
        begun = trio.current_time()
        await self._run_stop_command(process, limit_s)
        return await process.stop(max(limit_s - (trio.current_time() - begun), 0))

    async def _run_stop_command(self, process: Process, limit_s: float) -> None:
        """Also for one that ended by itself, or was killed as it hung: what it was the client of
        may run on."""
        variant, port = self.variant, self.client.port
        argv = stop_command(variant.stop_command, process, port)
        if argv:
            self.abort(EngineDisconnected(self.epitaph))  # no request needs to wait for it
            env = _filled_in(variant.env, port)
            launched = self._launch(argv, env=env, workdir=variant.workdir, log=self.log)
            await run_stop_command(launched, argv[0], limit_s * LIMIT_SHARE, self.log)

    async def _watch(self) -> None:
        """What is due every `health_check_s` while the engine is ready; returns if it is lost."""
        assert self._health is not None
        every_s = self.variant.timeouts.health_check_s
        due = trio.current_time()
        while self._lost is None:
            due = max(due + every_s, trio.current_time())
            await trio.sleep_until(due)
            self._lost = await self._health.check()

    async def _measure(self, process: Process, report: Callable[[Event], None]) -> None:
        """Report the most memory that its processes held, whenever that grows."""
        pid, memory_of_group = process.pid, self._memory_of_group
        if memory_of_group is None or pid is None:
            await trio.sleep_forever()
        peak, pause_s = 0, MEASURE_FIRST_S
        while True:
            await trio.sleep(pause_s)
            # In a thread: the first reading may take long where there is a GPU.
            try:
                now = await trio.to_thread.run_sync(memory_of_group, pid, abandon_on_cancel=True)
            except Exception as error:  # noqa: BLE001 - whatever a driver or /proc comes up with
                # Out of descriptors, a broken driver: no reason to end an engine that works.
                log.warning("%s: its memory cannot be read: %r", self.key, error)
                await trio.sleep_forever()
            if now is not None and now > peak:
                peak = now
                report(EngineMeasured(self.number, peak))
            pause_s = self.variant.timeouts.health_check_s

    async def _until_refusing(self) -> None:
        """Returns if the engine is lost because it takes requests and answers none."""
        await self.client.refuses.wait()
        await trio.sleep(EXIT_NEWS_S)
        self._lost = f"the engine refuses requests ({self.client.last_refusal})"

    async def _until_ready(self, process: Process) -> bool:
        """True once it is ready, False if its stop was wanted first."""
        limit_s = self.variant.timeouts.startup_s
        health = self._health = HealthRecord(str(self.key), self.client, self.variant.timeouts)
        with trio.move_on_after(limit_s) as limit:
            await first_of(process.exited.wait, self._stop_wanted.wait, health.until_good)
        if process.exited.is_set() and not self._stop_wanted.is_set():
            raise _StartFailed(f"the engine {process.status} while starting{_tail(process)}")
        if limit.cancelled_caught:
            raise _StartFailed(
                f"the engine was not ready within {limit_s:g} s (engine_startup_timeout); its "
                f"health endpoint: {health.last}{_tail(process)}",
                timed_out=True,
            )
        if self._stop_wanted.is_set():
            return False
        # With a stop_command the process is only a client: its server holds the port.
        if not self.variant.stop_command and process.owns_port(self.client.port) is False:
            raise _StartFailed(self._port_taken(self.client.port))
        return True

    def _info(self, process: Process, facts: EngineFacts) -> EngineInfo:
        declared = self.variant.context
        context = min(declared, facts.context or declared)
        shared = self._kind.shared_tokens(self.variant.args, facts)
        if context < declared:
            cure = self._kind.context_cure(declared, facts, shared)
            log.error(
                "%s declares a context of %d tokens, but one request gets %d: %s. %d is used",
                self.key, declared, context, cure, context,
            )  # fmt: skip
        places = self.variant.parallel or facts.places or DEFAULT_PLACES
        load_s = trio.current_time() - self.started_at
        return EngineInfo(process.pid, places, context, load_s, shared)

    def _say_ready(self, info: EngineInfo) -> None:
        log.info(
            "%s: ready in %.2f s (%s, %s, context %d, %d at a time)",
            self.key, info.load_s, f"pid {info.pid}" if info.pid else "no process here",
            self.client.base_url, info.context, info.places,
        )  # fmt: skip

    def _port_taken(self, port: int) -> str:
        return (
            f"port {port} is held by {ports.describe_port_holder(port)}, so {self.key} cannot "
            "listen there; end that process, or give the variant another address (connect)"
        )


def _filled_in(env: Mapping[str, str], port: int) -> dict[str, str]:
    return {name: value.replace("${PORT}", str(port)) for name, value in env.items()}


def _pid(process: Process) -> str:
    return "elsewhere" if process.pid is None else f"pid {process.pid}"


def _tail(process: Process) -> str:
    lines = process.last_lines(LINES_IN_ERROR)
    return "; its last lines:\n" + "\n".join(lines) if lines else ""
