"""Others: what other programs hold of the memory that a pool's engines share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import psutil
import trio

from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.process.memory_meter import MemoryMeter
from trio_gateway.hardware.devices import Device

EVERY_S = 5.0
CHANGE_BYTES = 16 * 1024**2  # less is no news
ASK_S = 1.0  # for who cannot wait for a driver that takes long

log = logging.getLogger(__name__)


class Others:
    """`engines`: those that are not gone, by their numbers."""

    def __init__(
        self, meter: MemoryMeter, config: GatewayConfig, engines: Mapping[int, Engine]
    ) -> None:
        self._meter, self._engines = meter, engines
        self._pools: dict[str, str] = {}
        self._read, self._read_at = dict[str, int | None](), -EVERY_S
        self._reading = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # a driver that hangs takes no further one
        self.take_over(config)

    def take_over(self, config: GatewayConfig) -> None:
        """Another configuration is in force; engines of earlier ones may still run."""
        local = (model for model in config.models if model.engine.has_process)
        self._pools |= {model.name: model.pool for model in local}

    async def watch(self, tell: Callable[[Mapping[str, int | None]], None]) -> None:
        """Tell it whenever that has changed, by pool; until cancelled."""
        known: Mapping[str, int | None] = {}
        while True:
            try:
                read = await self._fresh()
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
                return await self._fresh()
            except Exception as error:  # noqa: BLE001 - as above
                log.debug("what other programs hold cannot be read: %r", error)
        return {}

    async def _fresh(self) -> Mapping[str, int | None]:
        async with self._reading:
            if trio.current_time() >= self._read_at + EVERY_S:
                # In a thread: the first reading may take long where there is a GPU.
                self._read = await trio.to_thread.run_sync(
                    others_of, self._meter, self._groups(),
                    abandon_on_cancel=True, limiter=self._thread,
                )  # fmt: skip
                self._read_at = trio.current_time()
            return self._read

    def _groups(self) -> dict[str, list[int]]:
        """The process groups of each pool's engines."""
        groups: dict[str, list[int]] = {pool: [] for pool in self._pools.values()}
        for engine in self._engines.values():
            if engine.pid is not None and engine.key.model in self._pools:
                groups[self._pools[engine.key.model]].append(engine.pid)
        return groups


def others_of(meter: MemoryMeter, groups: Mapping[str, Collection[int]]) -> dict[str, int | None]:
    """By pool, the bytes that nobody of these process groups holds: of the devices that its engines
    use, or of the only one there is; without any, of the machine. None: that cannot be told."""
    reading = meter.hardware.read()
    if reading.faults:
        log.debug("the GPU's memory cannot be read: %s", reading.faults)
        return dict.fromkeys(groups)
    devices = reading.gpus
    ours = frozenset(group for pool in groups.values() for group in pool)
    if not devices:
        return dict.fromkeys(groups, _of_machine(ours))
    return {pool: _of_devices(devices, frozenset(its), ours) for pool, its in groups.items()}


def _of_devices(devices: Sequence[Device], its: frozenset[int], ours: frozenset[int]) -> int | None:
    used = [device for device in devices if _held_by(device, its)]
    if not its and len(devices) == 1:
        used = [*devices]
    # In a container the driver may name processes by other ids: then whose is whose is not known.
    return sum(max(d.used_bytes - _held_by(d, ours), 0) for d in used) if used else None


def _held_by(device: Device, groups: frozenset[int]) -> int:
    return sum(size for pid, size in device.held.items() if _group_of(pid) in groups)


def _of_machine(ours: frozenset[int]) -> int:
    memory = psutil.virtual_memory()
    held = 0
    for pid in psutil.pids() if ours else ():
        if _group_of(pid) in ours:
            with suppress(psutil.Error, OSError):
                info = psutil.Process(pid).memory_info()
                # What is mapped from a file is not in use by this measure.
                held += int(info.rss) - int(getattr(info, "shared", 0))
    return max(int(memory.total - memory.available) - held, 0)


def _group_of(pid: int) -> int | None:
    if not hasattr(os, "getpgid"):  # Windows: an engine is one process
        return pid
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _is_news(known: Mapping[str, int | None], read: Mapping[str, int | None]) -> bool:
    return any(
        pool not in known
        or (size is None) != (known[pool] is None)
        or abs((size or 0) - (known[pool] or 0)) >= CHANGE_BYTES
        for pool, size in read.items()
    )
