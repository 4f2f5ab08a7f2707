"""Engine: the life of one engine, from the decision to start it until its process is gone.

One task runs `Engine.run`. What happens is reported as the scheduler's events; the task never
decides: it starts, watches, and stops when it is told to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

import msgspec
import trio

from trio_gateway.config.engine_types import EngineType
from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.address import AddressUnusable, port_taken
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.sleep import has_fallen_asleep
from trio_gateway.engine.errors import EngineDisconnected, ExchangeAborted
from trio_gateway.engine.health import EXIT_NEWS_S, HealthRecord
from trio_gateway.engine.info import EngineInfo, info_of, ready_words
from trio_gateway.engine.kv.slot_owners import SlotOwners
from trio_gateway.engine.kv.slots import EngineKv
from trio_gateway.engine.launch import Elsewhere, Launch
from trio_gateway.engine.outcome import Outcome, StartFailed, ended_early, not_ready_within
from trio_gateway.engine.process.memory_meter import watch_peak
from trio_gateway.engine.process.process import (
    Ending,
    EngineSpawnError,
    Launcher,
    Process,
    StopReport,
    last_words,
    output_of,
    where,
    with_output,
)
from trio_gateway.engine.process.stop_command import LIMIT_SHARE, run_stop_command, stop_command
from trio_gateway.engine.scheduling.elsewhere_events import SlotsChanged
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Event,
    VariantKey,
)
from trio_gateway.engine.speeds import Speeds
from trio_gateway.lines import ENGINE_LOGGERS
from trio_gateway.tasks import first_of

log = logging.getLogger(__name__)


class Engine:
    """One engine. `client` is there once it starts, `info` once it is ready."""

    client: EngineClient

    def __init__(
        self,
        number: int,
        key: VariantKey,
        variant: VariantConfig,
        report: Callable[[Event], None],
        *,
        launch: Launcher,
        engine_type: EngineType,
        kind: EngineKind,
        ports_in_use: set[int],
        secrets: Collection[str],
        memory_of_group: Callable[[int], int | None] | None,
        kv: EngineKv | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        # Nothing here can fail: the scheduler counts this engine already, and only `run` reports.
        self.number, self.key, self.variant, self._report = number, key, variant, report
        self.info: EngineInfo | None = None
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self.was_killed = False  # as it did not end when it was asked to
        self._kind = kind
        self._memory_of_group = memory_of_group
        self.kv, self._may_restore = kv, True
        self.owners: SlotOwners | None = None  # where owners are kept apart
        self.speeds = Speeds()
        self._client: EngineClient | None = None
        self._stop_wanted = trio.Event()
        self.gone = trio.Event()
        self.epitaph = "the engine was stopped"  # what a request that loses it is told
        self.last_output: tuple[str, ...] = ()  # with that, if it ended by itself
        self._process: Process | None = None
        self._lost: str | None = None  # why it must be given up although its process is there
        self.log = logging.getLogger(f"{ENGINE_LOGGERS}{key}")
        self.launch = Launch(
            variant, engine_type, kind, launch, ports_in_use, secrets, kv, self.log, elsewhere
        )

    def __repr__(self) -> str:
        return f"<Engine {self.number} {self.key}>"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def output(self) -> tuple[str, ...]:
        """Its last lines, as they go with an error."""
        return output_of(self._process) if self._process is not None else ()

    def stop(self) -> None:
        """Ask for its stop; `run` carries it out."""
        self._stop_wanted.set()

    def abort_requests(self, error: ExchangeAborted) -> None:
        """End every request that is under way at it; each gets this error."""
        if self._client is not None:
            self._client.abort_requests(error)

    def _abort_all(self) -> None:
        """Nothing more will come from it: all that wait for it are told the epitaph."""
        if self._client is not None:
            self._client.abort_all(EngineDisconnected(self.epitaph))

    async def run(self) -> None:
        """Run the engine until it is stopped or gone. The last event says which."""
        try:
            try:
                await self._run()
            except (StartFailed, AddressUnusable, EngineSpawnError) as error:
                failed = error if isinstance(error, StartFailed) else StartFailed(str(error))
                log.error("%s did not start: %s", self.key, with_output(str(error), failed.output))
                why = str(error), failed.timed_out, failed.output, failed.unavailable
                self._finish(EngineFailed(self.number, *why))
            except Exception as error:
                # What happens to one engine, a bug of ours included, must not end all the others.
                log.exception("%s: a bug in the gateway; please report it", self.key)
                end = EngineFailed if self.info is None else EngineExited
                self.epitaph = f"a bug in the gateway: {error!r}"
                self._finish(end(self.number, self.epitaph))
            else:
                self._finish(EngineExited(self.number))
        finally:
            self._let_go()
            if self.kv is not None:
                self.kv.tidy()
            if self._client is not None:
                # Closes sockets without waiting for anything; shielded so that none is left open.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._client.aclose()

    def _finish(self, last: Event) -> None:
        """Report the end, once."""
        if not self.gone.is_set():
            self._let_go()
            self._report(last)

    def _let_go(self) -> None:
        if self.gone.is_set():
            return  # the port may be a successor's by now
        self.gone.set()
        self._abort_all()
        self.launch.let_go()

    def refusal(self, status: int, said: str = "") -> str:
        """What it means that it answers 401 or 403; see EngineKey."""
        return self.launch.key.refusal(f"the engine {self.key}", status, said)

    async def _run(self) -> None:
        # Where it is to run may be silent, and a stop does not wait for that.
        client = await first_of(self.launch.open_client, self._until_stopped)
        if client is None:
            return
        self._client = self.client = client
        argv = self.launch.argv(client)
        log.info("%s: starting at %s", self.key, client.base_url)
        while await self._run_process(argv) is Outcome.RESTORE_FAILED:
            client.idle.drop_all()  # the next process has the same address
            log.warning("%s: starting again, without a restore", self.key)
            self._may_restore = False

    async def _until_stopped(self) -> None:
        await self._stop_wanted.wait()

    async def _run_process(self, argv: list[str]) -> Outcome:
        """One process, from its start to its end."""
        async with self.launch.launched(argv, self.client) as process:
            self._process = process
            try:
                return await self._live(process)
            except StartFailed:
                raise
            except BaseException:
                if self.variant.stop_command:
                    log.warning("%s: killed at once, not by its stop_command", self.key)
                raise

    async def _live(self, process: Process) -> Outcome:
        try:
            outcome = await self._serve(process)
        except StartFailed:
            await self._stop(process, self.variant.timeouts.stop_s)
            raise
        match outcome:
            case Outcome.STOP:
                await self._stop_in_order(process)
            case Outcome.LOST:
                await self._bury(process)
            case Outcome.RESTORE_FAILED:
                pass  # it has ended; `_run` starts another
        return outcome

    async def _serve(self, process: Process) -> Outcome:
        """Start it up and let it work, until there is a reason to end it."""
        timeouts = self.variant.timeouts
        health = HealthRecord(str(self.key), self.client, lambda: self.variant.timeouts)
        await self._until_ready(process, health)
        if self._stop_wanted.is_set():
            return self._outcome(process)
        facts = await self.client.read_facts(timeouts.health_check_s)
        if self.client.key_refused is not None and self.launch.withdraw_key(self.client):
            facts = await self.client.read_facts(timeouts.health_check_s)
        if self.client.key_refused is not None:
            log.warning("%s", self.refusal(self.client.key_refused))
        if self.owners is not None:
            self.owners.begin(facts.slots)
        load_s = trio.current_time() - self.started_at
        each = info_of(self.key, self.variant, self._kind, facts, process.pid, load_s)
        info = msgspec.structs.replace(each, slots=each.slots * process.copies)
        if not await self._survives_restore(process, facts, info):
            return Outcome.RESTORE_FAILED
        if self._stop_wanted.is_set():
            return self._outcome(process)
        self.info, self.ready_at = info, trio.current_time()
        log.info("%s: ready %s", self.key, ready_words(info, self.client.base_url))
        self._report(EngineReady(self.number, info.slots, info.context, info.shared_tokens))
        keep = trio.sleep_forever if self.kv is None else partial(self.kv.keep_saved, self.client)
        self._lost = await first_of(
            keep,
            self._stop_wanted.wait,
            process.exited.wait,
            health.until_lost,
            partial(self._measure, process),
            partial(self._follow_copies, process, each.slots),
        )
        return self._outcome(process)

    def _outcome(self, process: Process) -> Outcome:
        lost = process.exited.is_set() or self._lost is not None
        return Outcome.LOST if lost else Outcome.STOP

    async def _survives_restore(
        self, process: Process, facts: EngineFacts, info: EngineInfo
    ) -> bool:
        """Restore saved KV caches before the first request, which may end the engine."""
        if self.kv is None or not self._may_restore:
            return True
        limits = (info.context, info.slots, info.shared_tokens)
        restore = partial(self.kv.restore, self.client, facts, *limits)
        await first_of(process.exited.wait, self._stop_wanted.wait, restore)
        if self._stop_wanted.is_set():
            return True
        return await self.kv.outlived(process.exited, EXIT_NEWS_S)

    async def _bury(self, process: Process) -> None:
        """Say how it ended by itself, or why it is given up, and leave nothing of it behind."""
        ended = process.exited.is_set()
        reason = f"the engine {process.status}" if ended else self._lost
        self.epitaph = f"{reason}{last_words(process)}"
        self.last_output = output_of(process)
        asleep = not ended and has_fallen_asleep(self.client.sleep)
        told = f"{self.key} ({where(process)}): {with_output(self.epitaph, self.last_output)}"
        log.log(logging.INFO if asleep else logging.ERROR, "%s", told)
        if not ended:
            self._abort_all()
            # Not asked to end: that would wake a stopped engine, and it might write on.
            await process.kill()
        await self._run_stop_command(process, self.variant.timeouts.stop_s)
        # At once: a helper may hold its pipe open for a while.
        self._finish(EngineExited(self.number, self.epitaph, self.last_output, asleep))

    async def _stop_in_order(self, process: Process) -> None:
        """Save what its slots hold, then stop it."""
        stop_s = self.variant.timeouts.stop_s
        begun = trio.current_time()
        if self.kv is not None and self.info is not None:
            await self.kv.save(self.client)
        spent_s = trio.current_time() - begun
        stopped = await self._stop(process, max(stop_s - spent_s, stop_s / 2))
        self.was_killed = stopped.ending is Ending.KILLED
        took_ms = round((trio.current_time() - begun - spent_s) * 1000)
        log.info("%s (%s) %s in %d ms", self.key, where(process), stopped.ending.value, took_ms)

    async def _stop(self, process: Process, limit_s: float) -> StopReport:
        """The `stop_command`, if there is one, then SIGTERM, and SIGKILL after `limit_s`."""
        self.client.idle.drop_all()  # some servers wait for the end of what is open
        begun = trio.current_time()
        await self._run_stop_command(process, limit_s)
        return await process.stop(max(limit_s - (trio.current_time() - begun), 0))

    async def _run_stop_command(self, process: Process, limit_s: float) -> None:
        """Also for one that ended by itself or was killed: what it was the client of may run on."""
        if argv := stop_command(self.variant.stop_command, process, self.client.port):
            self._abort_all()  # no request needs to wait for it
            launched = self.launch.launched(argv, self.client)
            await run_stop_command(launched, argv[0], limit_s * LIMIT_SHARE, self.log)

    async def _follow_copies(self, process: Process, each: int) -> None:
        """Report its places, whenever there are others."""
        while self.info is not None:
            slots = each * await process.copies_changed()
            log.info("%s: %d at a time", self.key, slots)
            self.info = msgspec.structs.replace(self.info, slots=slots)
            self._report(SlotsChanged(self.number, slots))

    async def _measure(self, process: Process) -> None:
        """Report the most memory that its processes held, whenever that grows."""
        if self._memory_of_group is None or process.pid is None:
            await trio.sleep_forever()
        every_s, tell = self.variant.timeouts.health_check_s, partial(EngineMeasured, self.number)
        read = self._memory_of_group
        await watch_peak(read, process.pid, every_s, lambda peak: self._report(tell(peak)))

    async def _until_ready(self, process: Process, health: HealthRecord) -> None:
        """Returns once it is ready, or its stop is wanted."""
        limit_s = self.variant.timeouts.startup_s
        with trio.move_on_after(limit_s) as limit:
            good = partial(self.launch.until_good, health, self.client, self.refusal)
            await first_of(process.exited.wait, self._stop_wanted.wait, good)
        if process.exited.is_set() and not self._stop_wanted.is_set():
            raise ended_early(process)
        if limit.cancelled_caught:
            raise not_ready_within(limit_s, health.last, process)
        # With a stop_command the process is only a client: its server holds the port.
        if self._stop_wanted.is_set() or self.variant.stop_command:
            return
        if process.owns_port(self.client.port) is False:
            raise StartFailed(port_taken(self.client.port, self.variant, self._kind))
