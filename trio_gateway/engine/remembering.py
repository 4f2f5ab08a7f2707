"""Remembering: writes down what engines turn out to be, and tells the scheduler in the next run.

One task. It is told of engines by the bus; a start costs it a look at the variant's files, in a
thread, and what is measured is written there as well, a moment later. A disk that is slow, full or
read-only costs what would be remembered, with a line in the log, and nothing else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import msgspec
import trio

from trio_gateway.bus import Bus
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.clients.sleep import was_woken
from trio_gateway.engine.configured import Configured
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.happenings import Change, EngineChanged, MemorySeen, Reloaded
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.policy import KvCosts
from trio_gateway.engine.ledger.entry import Entry, News, Verdict, short_text
from trio_gateway.engine.ledger.file import LedgerFile, LedgerUnavailable
from trio_gateway.engine.ledger.identity import identity_of
from trio_gateway.engine.scheduling.events import Known, Remembered, VariantKey
from trio_gateway.engine.scheduling.forecast import mean

log = logging.getLogger(__name__)

T = TypeVar("T")

READ_S = 2.0  # at the start, for the file; then the gateway does without
FLUSH_S = 2.0  # at the end, for what is not written yet
LOAD_MIN_S = 1e-3  # of an engine that is elsewhere, and there at once
WRITE_EVERY_S = 1.0
REFINE_EVERY_S = 30.0  # what only makes a speed more exact


class _Run:
    """One engine, and what it turned out to be."""

    def __init__(self, engine: Engine, model: ModelConfig, variant: VariantConfig) -> None:
        self.engine, self.model, self.variant = engine, model, variant
        self.identity: str | None = None  # None: nobody has looked
        self.base: Entry | None = None  # what was known before it
        self.load_s: float | None = None
        self.woke = False  # its machine had to be woken for it
        self.memory_bytes: int | None = None
        self.has_ended = False
        self.tried: dict[str, object] = {}

    def entry(self, kv: KvCarryover, now_s: float) -> Entry:
        key, info, speeds = self.engine.key, self.engine.info, self.engine.speeds
        build = short_text((info.build if info is not None else None) or "")
        base = self.base if self.base is not None and self.base.build == build else None
        load_s = None if base is None else base.load_s
        took_s = None if self.load_s is None else max(self.load_s, LOAD_MIN_S)
        entry = Entry(
            at=now_s,
            name=short_text(str(key)),
            build=build,
            memory_bytes=self.memory_bytes,
            load_s=None if took_s is None or self.woke else mean(load_s, took_s),
            wake_s=took_s if self.woke else None,
            context=None if info is None else info.context,
            slots=None if info is None else info.slots,
            shared_tokens=None if info is None else info.shared_tokens,
            prompt_speed=speeds.prompt,
            speed=speeds.speed,
        )
        if self.engine.kv is not None:
            costs, verdict = kv.costs(key.model), kv.verdicts.get(key)
            entry = msgspec.structs.replace(
                entry,
                kv_bytes_per_token=costs.bytes_per_token or None,
                kv_save=costs.save_speed or None,
                kv_restore=costs.restore_speed or None,
                restore=verdict and Verdict(verdict.helps, verdict.said, now_s),
            )
        return msgspec.structs.replace(entry, **self.tried)


class Remembering:
    """Run `run` in a task; it reads what is known before it says that it has started.

    Args:
        file: None: nothing is remembered.
        engines: those that are not gone, by their numbers.
        report: takes what earlier runs have measured.
    """

    def __init__(
        self,
        file: LedgerFile | None,
        configured: Configured,
        engines: Mapping[int, Engine],
        kv: KvCarryover,
        bus: Bus,
        report: Callable[[Remembered], None],
    ) -> None:
        self._file, self._configured, self._engines = file, configured, engines
        self._kv, self._bus, self._report = kv, bus, report
        self._runs: dict[int, _Run] = {}
        self._known: dict[str, Entry] = {}  # by identity, as far as this process knows
        self._unwritten: dict[str, Entry] = {}
        self._written_at = 0.0
        self._news = trio.Event()
        self._is_reloaded = False
        self._thread = trio.CapacityLimiter(1)
        self._fault = ""

    def note(self, key: VariantKey, **tried: object) -> None:
        """Fields of the Entry of the engine that runs, as somebody has tried them."""
        for run in self._runs.values():
            if run.engine.key == key:
                run.tried |= tried
        self._tell()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remember until cancelled; then what is not written yet, within a short time."""
        if self._file is None:
            task_status.started()
            return
        with (
            self._bus.listening(EngineChanged, self._changed),
            self._bus.listening(MemorySeen, self._grew),
            self._bus.listening(Reloaded, self._reloaded),
        ):
            self._kv.tell = self._tell
            with trio.move_on_after(READ_S) as limit:
                await self._try(partial(self.recall, self._file.open))
            if limit.cancelled_caught:
                self._complain("the disk is too slow")
            task_status.started()
            try:
                await self._try(self._keep)
                await trio.sleep_forever()
            finally:
                # Shielded: engines that ended in the shutdown were measured from start to end.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_S):
                    await self._try(self._flush)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """What goes wrong here is no reason to end engines."""
        try:
            await work()
        except Exception:
            log.exception("a bug in the gateway; please report it: nothing is remembered")

    async def _flush(self) -> None:
        await self._collect()
        await self._write()

    async def recall(self, read: Callable[[], dict[str, Entry]] | None = None) -> None:
        """Tell what earlier runs have measured. `read` None: changes nothing on the disk."""
        if self._file is None:
            return
        try:
            self._known |= await self._in_thread(read or self._file.read)
        except LedgerUnavailable as error:
            self._complain(str(error))
        if not self._known:
            return
        secrets = self._configured.config.secret_variables
        variants = dict(self._configured.variants)
        identities = await self._in_thread(
            lambda: {key: identity_of(*both, secrets) for key, both in variants.items()}
        )
        now_s, found = time.time(), dict[VariantKey, Entry]()
        for key, identity in identities.items():
            if (entry := self._known.get(identity)) is not None:
                found[key] = entry
        newest_first = sorted(found.items(), key=lambda item: -item[1].at)
        known: dict[VariantKey, Known] = {key: entry.known for key, entry in newest_first}
        if known:
            self._report(Remembered(known))
        for key, entry in newest_first:
            if self._configured.variants.get(key) == variants[key]:
                self._kv.remember(key.model, _costs(entry), entry.no_help(now_s))

    # -- being told ---------------------------------------------------------------------------

    def _changed(self, change: EngineChanged) -> None:
        run = self._runs.get(change.engine)
        match change.change:
            case Change.STARTING:
                engine = self._engines[change.engine]
                engine.speeds.tell = self._tell
                self._runs[change.engine] = _Run(engine, *self._configured.variants[change.key])
            case Change.READY if run is not None:
                run.load_s, run.woke = change.load_s, was_woken(run.engine.client.sleep)
            case Change.GONE | Change.FAILED if run is not None:
                run.has_ended = True
            case _:
                return
        self._tell()

    def _grew(self, seen: MemorySeen) -> None:
        if (run := self._runs.get(seen.engine)) is not None:
            run.memory_bytes = seen.memory_bytes
            self._tell()

    def _reloaded(self, reloaded: Reloaded) -> None:
        for key in reloaded.changed:
            self._kv.forget(key.model)
        self._is_reloaded = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()

    # -- writing ------------------------------------------------------------------------------

    async def _keep(self) -> None:
        again_at = math.inf
        while True:
            with trio.move_on_at(again_at):
                await self._news.wait()
            self._news = trio.Event()
            if self._is_reloaded:
                self._is_reloaded = False
                await self.recall()
            again_at = self._written_at + await self._collect()
            if again_at <= trio.current_time():
                await self._write()
                again_at = math.inf

    async def _collect(self) -> float:
        """What was measured by now; how long after a write that is worth the next one, in
        seconds."""
        await self._identify()
        news = {News.NONE}
        for number, run in [*self._runs.items()]:
            if run.has_ended:
                del self._runs[number]
            if run.identity is None or run.load_s is None:
                continue  # it never got ready
            entry = run.entry(self._kv, time.time()).after(self._latest(run.identity))
            what = entry.news_to(self._known.get(run.identity))
            if what is not News.NONE:
                self._unwritten[run.identity] = entry
                news.add(what)
        if News.FACT in news:
            return WRITE_EVERY_S
        return REFINE_EVERY_S if self._unwritten else math.inf

    async def _identify(self) -> None:
        """Of engines that have started since: the files that they read are those of now."""
        secrets = self._configured.config.secret_variables
        for run in [run for run in self._runs.values() if run.identity is None]:
            identity = await self._in_thread(partial(identity_of, run.model, run.variant, secrets))
            run.identity, run.base = identity, self._latest(identity)

    def _latest(self, identity: str) -> Entry | None:
        return self._unwritten.get(identity) or self._known.get(identity)

    async def _write(self) -> None:
        if not (unwritten := self._unwritten):
            return
        assert self._file is not None
        self._unwritten, self._written_at = {}, trio.current_time()
        self._known |= unwritten

        def change(stored: Mapping[str, Entry]) -> dict[str, Entry]:
            return {identity: entry.after(stored.get(identity)) for identity, entry in mine}

        mine = unwritten.items()
        try:
            await self._in_thread(partial(self._file.update, change))
            self._fault = ""
        except LedgerUnavailable as error:
            self._complain(str(error))

    def _complain(self, why: str) -> None:
        if not self._fault:  # one line, not one for each engine
            assert self._file is not None
            log.warning("what is measured is not remembered in %s: %s", self._file.path, why)
        self._fault = why

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Abandoned when the time is up: a disk that hangs holds up no start and no exit."""
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._thread)


def _costs(entry: Entry) -> KvCosts:
    costs = KvCosts()
    costs.prompt_speed, costs.bytes_per_token = entry.prompt_speed, entry.kv_bytes_per_token
    costs.save_speed, costs.restore_speed = entry.kv_save, entry.kv_restore
    return costs
