"""How much memory an engine's processes hold now: a GPU's if they use one, otherwise their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator

import psutil
import trio

from trio_gateway.hardware.devices import Hardware
from trio_gateway.hardware.machine import this_machine

log = logging.getLogger(__name__)

FIRST_READING_S = 1.0  # after the engine got ready: the request that it was started for goes first


class MemoryMeter:
    """Reads process groups. One for all engines; `read` may be called from any thread.

    A reading takes 0.2 ms where there is no GPU (70 processes on the machine, 2 of
    them in the group; 1.5 µs more for each further process of the machine). The first one may take
    long where there is one: call it from a worker thread.

    In a container the driver may name processes by their ids on the host. Then none of them is
    known here, and the processes' own memory is what `read` gives.
    """

    def __init__(self, hardware: Hardware | None = None) -> None:
        self.hardware = hardware or this_machine()

    def read(self, group: int) -> int | None:
        """The bytes that the process group holds, or None if that cannot be read (any more).

        GPU memory is summed over all devices. Otherwise it is the resident memory of all the
        group's processes; pages that they share, such as a mapped model, are counted in each.
        """
        found = self.hardware.read()
        if found.faults:
            # Not the resident memory instead: it would pass for a much smaller engine.
            log.debug("the GPU memory of engine %d cannot be read: %s", group, found.faults)
            return None
        held: dict[int, list[int | None]] = {}
        for device in found.gpus:
            for holder in device.holders:
                held.setdefault(holder.pid, []).append(holder.held_bytes)
        sizes = [size for pid in of_group(group, held) for size in held[pid]]
        if None in sizes:
            log.debug("the driver knows the processes of engine %d, but not their memory", group)
            return None
        return sum(size or 0 for size in sizes) or _resident_bytes(group)


async def watch_peak(
    read: Callable[[int], int | None], group: int, every_s: float, report: Callable[[int], None]
) -> None:
    """Report the most bytes that the group has held, whenever that grows; until cancelled.

    Args:
        read: as `MemoryMeter.read`.
        every_s: the pause between two readings.
    """
    peak, pause_s = 0, FIRST_READING_S
    while True:
        await trio.sleep(pause_s)
        # In a thread: the first reading may take long where there is a GPU.
        try:
            now = await trio.to_thread.run_sync(read, group, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - whatever a driver or /proc comes up with
            # Out of descriptors, a broken driver: no reason to stop an engine that works.
            log.warning("the memory of process group %d cannot be read: %r", group, error)
            await trio.sleep_forever()
        if now is not None and now > peak:
            peak = now
            report(peak)
        pause_s = every_s


def of_group(group: int, pids: Iterable[int]) -> Iterator[int]:
    """Those of the processes that are in the group and still there."""
    if not hasattr(os, "getpgid"):  # Windows: an engine is one process
        yield from (pid for pid in pids if pid == group)
        return
    for pid in pids:
        try:
            if os.getpgid(pid) == group:
                yield pid
        except OSError:
            continue


def _resident_bytes(group: int) -> int | None:
    # All ids, as asking each for its group costs 1.5 µs; psutil's `children` reads a file for each,
    # ten times as long, and misses those whose parent has ended.
    sizes = []
    for pid in of_group(group, psutil.pids()):
        try:
            sizes.append(int(psutil.Process(pid).memory_info().rss))
        except (psutil.Error, OSError):
            continue
    return sum(sizes) or None
