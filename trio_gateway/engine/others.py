"""Others: what other programs hold of the memory that pools' engines share, as it was read last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from trio_gateway.engine.configured import Configured
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.pool_readings import PoolsEngines, others_of
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.hardware.devices import Device, Hardware, Reading

EVERY_S = 5.0
CHANGE_BYTES = 16 * 1024**2  # less is no news
ASK_S = 1.0  # for who cannot wait for a driver that takes long

log = logging.getLogger(__name__)


class Others:
    """One reading at a time, for all who ask. `engines`: those that are not gone, by their numbers.
    `devices`: of the last reading, by their ids."""

    def __init__(
        self,
        hardware: Hardware,
        configured: Configured,
        engines: Mapping[int, Engine],
        state: SchedulerState,
    ) -> None:
        self._hardware, self._configured = hardware, configured
        self._engines, self._state = engines, state
        self.devices: Mapping[str, Device] = {}
        self._read: tuple[Reading, Mapping[str, PoolsEngines]] = Reading(()), {}
        self._read_at = -EVERY_S
        self._reading = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # a driver that hangs takes no further one

    async def watch(self, tell: Callable[[Mapping[str, int | None]], None]) -> None:
        """Tell it whenever that has changed, by pool; until cancelled."""
        known: Mapping[str, int | None] = {}
        while True:
            try:
                read = await self._by_pool()
            except Exception as error:  # noqa: BLE001 - whatever a driver or /proc comes up with
                log.debug("what other programs hold cannot be read: %r", error)
                return
            if _is_news(known, read):
                known = read
                tell(read)
            await trio.sleep(EVERY_S)

    async def now(self) -> Mapping[str, int | None]:
        """By pool, some seconds old at most; empty: it cannot be read, or not in time."""
        with trio.move_on_after(ASK_S):
            try:
                return await self._by_pool()
            except Exception as error:  # noqa: BLE001 - as above
                log.debug("what other programs hold cannot be read: %r", error)
        return {}

    async def _by_pool(self) -> Mapping[str, int | None]:
        reading, engines = await self.read(EVERY_S)
        # In a thread: it looks at each process of the machine.
        return await trio.to_thread.run_sync(others_of, reading, engines)

    async def read(self, at_most_s: float) -> tuple[Reading, Mapping[str, PoolsEngines]]:
        """The devices, as they were no longer ago, and by pool whose engines were there then."""
        async with self._reading:
            if trio.current_time() >= self._read_at + at_most_s:
                self._read = await self._read_now()
                self._read_at = trio.current_time()
                self.devices = {device.id: device for device in self._read[0].devices}
            return self._read

    async def _read_now(self) -> tuple[Reading, Mapping[str, PoolsEngines]]:
        before = self._pools_engines()
        for _ in range(2):
            # In a thread: the first reading may take long where there is a GPU.
            reading = await trio.to_thread.run_sync(
                self._hardware.read, abandon_on_cancel=True, limiter=self._thread
            )
            after = self._pools_engines()
            if _groups(before) == _groups(after):
                break  # else what an engine that came or went holds would be another program's
            before = after
        return reading, after

    def _pools_engines(self) -> dict[str, PoolsEngines]:
        """Of the pools whose engines have processes."""
        local = [model for model in self._configured.config.models if model.engine.has_process]
        found: dict[str, PoolsEngines] = dict.fromkeys(
            (model.pool for model in local), PoolsEngines()
        )
        groups: dict[str, set[int]] = {}
        known: dict[str, int | None] = {}
        for number, view in self._state.engines.items():
            engine = self._engines.get(number)
            if engine is None or engine.pid is None:
                continue
            pool, so_far = view.facts.pool, known.get(view.facts.pool, 0)
            groups.setdefault(pool, set()).add(engine.pid)
            size = self._known(view)
            known[pool] = None if size is None or so_far is None else so_far + size
        for pool, its in groups.items():
            found[pool] = PoolsEngines(frozenset(its), known[pool])
        return found

    def _known(self, view: EngineView) -> int | None:
        if view.state is EngineState.STARTING:
            return None
        return self._state.variants.memory_of(view.facts)


def _groups(engines: Mapping[str, PoolsEngines]) -> set[int]:
    return {group for pool in engines.values() for group in pool.groups}


def _is_news(known: Mapping[str, int | None], read: Mapping[str, int | None]) -> bool:
    return any(
        pool not in known
        or (size is None) != (known[pool] is None)
        or abs((size or 0) - (known[pool] or 0)) >= CHANGE_BYTES
        for pool, size in read.items()
    )
