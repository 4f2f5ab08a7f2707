"""Yields: memory of a pool that is kept free for another program, for as long as that wants it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable

import msgspec
import trio

from trio_gateway.bus import Bus
from trio_gateway.config.sizes import format_over, format_size
from trio_gateway.engine.happenings import YieldChanged
from trio_gateway.engine.memory_watch import MemoryWatch
from trio_gateway.engine.scheduling.events import Event
from trio_gateway.engine.scheduling.memory_events import WHOLE, Yield, YieldOver
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.words import held_by
from trio_gateway.wall_clock import WallClock

log = logging.getLogger(__name__)


class YieldImpossible(Exception):
    """There is no such pool or device, or it has not as much. `member`: of what was asked.
    `is_for_good`: as long as the configuration is as it is."""

    def __init__(self, message: str, member: str, *, is_for_good: bool = True) -> None:
        super().__init__(message)
        self.member, self.is_for_good = member, is_for_good


class YieldRow(msgspec.Struct, frozen=True):
    """`state`: `waiting` for engines to leave, or `held`. `ends_at_s`: Unix time; None: it has no
    end of its own. `waits_for`: the engines that are in its way, busy ones as long as they are."""

    id: int
    pool: str
    device: str | None
    memory_bytes: int
    state: str
    by: str
    since_s: float
    ends_at_s: float | None
    waits_for: tuple[str, ...]


class YieldHandle:
    """One of them. `changed` is set, and replaced, whenever something about it may have changed.
    `reason`: why it is over."""

    def __init__(self, number: int, by: str) -> None:
        self.number, self.by = number, by
        self.changed = trio.Event()
        self.is_ready, self.reason = False, ""
        self.asked_at = trio.current_time()

    @property
    def is_over(self) -> bool:
        return bool(self.reason)

    async def settled(self) -> None:
        """Until the room is there, or it is over."""
        while not (self.is_ready or self.is_over):
            await self.changed.wait()

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Yields:
    """Of one manager."""

    def __init__(
        self,
        state: SchedulerState,
        dispatch: Callable[[Event], None],
        watch: MemoryWatch,
        bus: Bus,
    ) -> None:
        self._state, self._dispatch, self._watch, self._bus = state, dispatch, watch, bus
        self._handles: dict[int, YieldHandle] = {}
        self._numbers = itertools.count(1)
        self._wall = WallClock()
        self._closing = ""
        self.is_waited_for = False  # some engine has to leave yet

    async def ask(
        self, pool: str, memory_bytes: int, seconds: float, device: str | None, by: str
    ) -> YieldHandle:
        """Idle engines leave for it, busy ones once they are done; nothing starts that would take
        it. `by`: who asks, in words.

        Raises:
            YieldImpossible
        """
        self._check_place(pool, device)
        if self._state.pools[pool].is_watched:
            await self._watch.look_now(pool)
            self._check_place(pool, device)
        self._check_size(pool, memory_bytes, device)
        if self._closing:
            raise YieldImpossible(self._closing, "memory", is_for_good=False)
        number = next(self._numbers)
        handle = self._handles[number] = YieldHandle(number, by)
        log.info("%s of the pool %s are wanted by %s", format_size(memory_bytes), pool, by)
        self.is_waited_for = True
        self._dispatch(Yield(number, pool, memory_bytes, seconds, device))
        self._tell()
        return handle

    def end(self, number: int, reason: str) -> bool:
        """Whether there was one of this number."""
        if number not in self._handles:
            return False
        self._dispatch(YieldOver(number))
        self.note_ended(number, reason)
        return True

    def close(self, reason: str) -> None:
        self._closing = reason
        for number in [*self._handles]:
            self.end(number, reason)

    def note_ready(self, number: int) -> None:
        self._handles[number].is_ready = True
        log.info("yield %d: the room is there", number)
        self._tell()

    def note_ended(self, number: int, reason: str) -> None:
        self._handles[number].reason = reason
        log.info("yield %d is over: %s", number, reason)
        self._handles.pop(number).tell()
        self._tell()

    def note_progress(self) -> None:
        """An engine was told something, or is gone."""
        for handle in self._handles.values():
            if not handle.is_ready:
                handle.tell()

    def _tell(self) -> None:
        self.is_waited_for = any(not handle.is_ready for handle in self._handles.values())
        for handle in self._handles.values():
            handle.tell()
        self._bus.publish(YieldChanged())

    def rows(self) -> list[YieldRow]:
        found = self._state.memory.yields
        return [self._row(handle) for number, handle in self._handles.items() if number in found]

    def row(self, handle: YieldHandle) -> YieldRow | None:
        """None: it is over."""
        return self._row(handle) if handle.number in self._state.memory.yields else None

    def _row(self, handle: YieldHandle) -> YieldRow:
        yielded = self._state.memory.yields[handle.number]
        waits_for: tuple[str, ...] = ()
        if not yielded.is_ready:
            making_way = self._state.memory.making_way
            leaving = [
                engine
                for engine in self._state.index.in_pool(yielded.asked.pool)
                if engine.id in making_way or engine.leaving
            ]
            waits_for = tuple(dict.fromkeys(str(engine.key) for engine in leaving))
        until = yielded.until
        return YieldRow(
            id=handle.number,
            pool=yielded.asked.pool,
            device=yielded.place if yielded.place != WHOLE else None,
            memory_bytes=yielded.asked.memory_bytes,
            state="held" if yielded.is_ready else "waiting",
            by=handle.by,
            since_s=round(self._wall.unix(handle.asked_at), 2),
            ends_at_s=None if until == math.inf else round(self._wall.unix(until), 2),
            waits_for=waits_for,
        )

    # -- whether it is possible ------------------------------------------------------------------

    def _check_place(self, pool: str, device: str | None) -> None:
        pools = self._state.pools
        if pool not in pools:
            raise YieldImpossible(f"no pool {pool!r}; known: {', '.join(pools)}", "pool")
        names = [each.name for each in pools[pool].devices]
        if device is not None and device not in names:
            known = f"it has {', '.join(names)}" if names else "it names none"
            raise YieldImpossible(f"the pool {pool} has no device {device!r}; {known}", "device")

    def _check_size(self, pool: str, wanted: int, device: str | None) -> None:
        """As much as there is at most, less what others were promised before."""
        memory = self._state.memory
        places = (
            [device] if device is not None else [d.name for d in self._state.pools[pool].devices]
        )
        known = [(place, memory.capacity(pool, place)) for place in places or [WHOLE]]
        sizes = [(size, place) for place, size in known if size is not None]
        if len(sizes) < len(known) or not sizes:
            return  # a pool without a limit: nothing runs in it meanwhile
        capacity, place = max(sizes)
        where = f"{place} of the pool {pool}" if place else f"the pool {pool}"
        if wanted > capacity:
            asked, has = format_over(wanted, capacity)
            raise YieldImpossible(f"{asked} are more than {where} has: {has}", "memory")
        free = max((memory.limit(pool, place) or 0, place) for _, place in sizes)
        if wanted > free[0]:
            lacks = self._lacks(pool, free[1], wanted, free[0])
            raise YieldImpossible(lacks, "memory", is_for_good=False)

    def _lacks(self, pool: str, place: str, wanted: int, free: int) -> str:
        memory = self._state.memory
        said = [f"{format_size(wanted)} cannot be had of the pool {pool}, {format_size(free)} can"]
        if yielded := memory.yielded(pool, place):
            said.append(f"{format_size(yielded)} are yielded already")
        for seen in memory.holders(pool):
            if seen.place == place and seen.others_bytes:
                size = format_size(seen.others_bytes)
                said.append(f"other programs hold {size}{held_by(seen.holders)}")
        return "; ".join(said)
