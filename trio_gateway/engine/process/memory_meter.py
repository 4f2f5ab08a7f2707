"""How much memory an engine's processes hold now: a GPU's if they use one, otherwise their own."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, cast

import msgspec
import psutil
import trio

log = logging.getLogger(__name__)

FIRST_READING_S = 1.0  # after the engine got ready: the request that it was started for goes first


class _GpuProcess(Protocol):
    """A line of NVML's list of processes. Some drivers know the process but not its memory."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815


class _GpuMemory(Protocol):
    used: int


class _Nvml(Protocol):
    """What is used here of `pynvml`, which has no types."""

    NVMLError: type[Exception]
    NVMLError_NotSupported: type[Exception]
    NVMLError_FunctionNotFound: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> _GpuMemory: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(  # noqa: N802
        self, handle: object
    ) -> list[_GpuProcess]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(  # noqa: N802
        self, handle: object
    ) -> list[_GpuProcess]: ...


class NotReadable(Exception):
    """NVML exists and did not answer, or not for all processes."""


class DeviceReading(msgspec.Struct, frozen=True):
    """One device: the bytes that are in use, and what each process holds, by its id."""

    used: int
    held: Mapping[int, int]


class MemoryMeter:
    """Reads process groups. One for all engines; `read` may be called from any thread.

    A reading takes 0.15 ms where there is no NVIDIA device (70 processes on the machine, 2 of
    them in the group; 1.5 µs more for each further process of the machine). The first one imports
    `pynvml` (20 ms, 3 MB) and initialises NVML, which on a machine with a GPU may take much
    longer: call it from a worker thread.

    In a container NVML may name processes by their ids on the host. Then none of them is known
    here, and the processes' own memory is what `read` gives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: _Nvml | None = None
        self._devices: tuple[object, ...] | None = None

    def read(self, group: int) -> int | None:
        """The bytes that the process group holds, or None if that cannot be read (any more).

        GPU memory is summed over all devices. Otherwise it is the resident memory of all the
        group's processes; pages that they share, such as a mapped model, are counted in each.
        """
        try:
            on_gpu = self._gpu_bytes(group)
        except NotReadable as error:
            # Not the resident memory instead: it would pass for a much smaller engine.
            log.debug("the GPU memory of engine %d cannot be read: %s", group, error)
            return None
        return on_gpu or _resident_bytes(group)

    def _gpu_bytes(self, group: int) -> int:
        """0 if no process of the group uses an NVIDIA device."""
        devices, nvml = self._opened()
        if nvml is None:
            return 0
        total = 0
        for device in devices:
            held, unknown = _held(nvml, device)
            if any(not held[pid] for pid in _of_group(group, unknown)):
                raise NotReadable("the driver knows the process, but not its memory")
            total += sum(held[pid] for pid in _of_group(group, held))
        return total

    def devices(self) -> list[DeviceReading]:
        """All NVIDIA devices; none where there is no such device or driver.

        Raises:
            NotReadable
        """
        devices, nvml = self._opened()
        if nvml is None:
            return []
        try:
            used = [nvml.nvmlDeviceGetMemoryInfo(device).used for device in devices]
        except nvml.NVMLError as error:
            raise NotReadable(str(error)) from None
        held = [_held(nvml, device)[0] for device in devices]
        return [*map(DeviceReading, used, held)]

    def _opened(self) -> tuple[tuple[object, ...], _Nvml | None]:
        with self._lock:
            if self._devices is None:
                self._devices = self._open_devices()
            return self._devices, self._nvml

    def _open_devices(self) -> tuple[object, ...]:
        """The devices to ask, for good. Without a driver or a device there are none."""
        nvml = cast("_Nvml", importlib.import_module("pynvml"))
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            devices = tuple(nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count))
        except (nvml.NVMLError, OSError) as error:
            log.debug("no NVIDIA device: %s", error)
            return ()
        if devices:
            self._nvml = nvml
        return devices


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


def _held(nvml: _Nvml, device: object) -> tuple[dict[int, int], set[int]]:
    """What each process holds of a device, and those of which that is not known.

    Raises:
        NotReadable
    """
    held: dict[int, int] = {}
    unknown: set[int] = set()
    # A process that computes and draws is in both lists, with the same number.
    for list_processes in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        try:
            processes = list_processes(device)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            continue  # not every device and driver has both lists
        except nvml.NVMLError as error:
            raise NotReadable(str(error)) from None
        for process in processes:
            if process.usedGpuMemory is None:
                unknown.add(process.pid)
            held[process.pid] = max(process.usedGpuMemory or 0, held.get(process.pid, 0))
    return held, unknown


def _of_group(group: int, pids: Iterable[int]) -> Iterator[int]:
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
    for pid in _of_group(group, psutil.pids()):
        try:
            sizes.append(int(psutil.Process(pid).memory_info().rss))
        except (psutil.Error, OSError):
            continue
    return sum(sizes) or None
