"""MemoryWatch: has the memory of pools looked at that share it with other programs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from trio_gateway.engine.others import Others
from trio_gateway.engine.pool_readings import places_of
from trio_gateway.engine.scheduling.memory_events import MemorySeen, PlaceSeen
from trio_gateway.engine.scheduling.pool_memory import FRESH_S
from trio_gateway.engine.scheduling.state import SchedulerState

EVERY_S = 2.0
MARGIN_S = 0.5
READ_LIMIT_S = 5.0  # for a driver that hangs: what waits goes on without it then

log = logging.getLogger(__name__)


class MemoryWatch:
    """Run `run` in a task. It sleeps while no engine runs in such a pool, and nothing waits.

    `others` None: nobody can look, so nothing is known of any memory.
    """

    def __init__(
        self, others: Others | None, state: SchedulerState, report: Callable[[MemorySeen], None]
    ) -> None:
        self._others, self._state, self._report = others, state, report
        self._wanted = set[str]()
        self._asked = trio.Event()
        self._was_readable = True
        self._missing = set[tuple[str, str]]()  # devices of pools, of which that was said

    def look(self, pool: str) -> None:
        """Look at it now; a MemorySeen follows."""
        self._wanted.add(pool)
        self._asked.set()

    def wake(self) -> None:
        """The pools are others now: look whether there is something to do."""
        self._asked.set()

    async def look_now(self, pool: str) -> None:
        """The same, and wait for it."""
        self._wanted.add(pool)
        await self._look(0.0)

    async def run(self) -> None:
        while True:
            if self._is_needed():
                with trio.move_on_after(EVERY_S):
                    await self._asked.wait()
            else:
                # A request that comes within that time goes by what was seen last, and asks nobody.
                with trio.move_on_after(FRESH_S + MARGIN_S):
                    await self._asked.wait()
                if not (self._asked.is_set() or self._is_needed()):
                    await self._asked.wait()
            self._asked = trio.Event()
            await self._look(EVERY_S / 2 if not self._wanted else 0.0)

    def _is_needed(self) -> bool:
        state = self._state
        pools = {name for name, pool in state.pools.items() if pool.is_watched}
        if not pools:
            return False
        return any(engine.facts.pool in pools for engine in state.engines.values()) or any(
            state.variants[model][0].pool in pools for model in state.queues
        )

    async def _look(self, at_most_s: float) -> None:
        wanted, self._wanted = self._wanted, set()
        seen = await self._places(at_most_s)
        for pool in [name for name, pool in self._state.pools.items() if pool.is_watched]:
            places = seen.get(pool)
            if places is not None:
                self._warn_of_missing(pool, places)
                self._report(MemorySeen(pool, places))
            elif pool in wanted:
                self._report(MemorySeen(pool, ()))

    def _warn_of_missing(self, pool: str, places: Sequence[PlaceSeen]) -> None:
        found = {place.place for place in places}
        for device in self._state.pools[pool].devices:
            name = device.name
            if device.memory_bytes is not None or name in found or (pool, name) in self._missing:
                continue
            self._missing.add((pool, name))
            log.warning(
                "pools.%s.devices: what %s has cannot be read; it takes one engine at a time. Give "
                "its size, if it is there", pool, name,
            )  # fmt: skip

    async def _places(self, at_most_s: float) -> dict[str, tuple[PlaceSeen, ...] | None]:
        """By pool; a pool that cannot be read is missing."""
        if self._others is None:
            return {}
        names = bool(self._state.tickets)
        try:
            with trio.fail_after(READ_LIMIT_S):
                reading, engines = await self._others.read(at_most_s)
                if reading.faults:
                    raise OSError("; ".join(reading.faults))
                pools = [pool for pool in self._state.pools.values() if pool.is_watched]
                # In a thread: for the RAM it looks at each process of the machine.
                found = {
                    pool.name: await trio.to_thread.run_sync(
                        partial(places_of, reading, pool, engines, names=names)
                    )
                    for pool in pools
                }
        except Exception as error:  # noqa: BLE001 - whatever a driver or /proc comes up with
            if self._was_readable:
                log.warning("the memory of the devices cannot be read: %r", error)
            self._was_readable = False
            return {}
        self._was_readable = True
        return found
