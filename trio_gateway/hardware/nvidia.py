"""NVIDIA's devices, as their driver tells by NVML (the package `nvidia-ml-py`).

Device numbers are those that an engine sees: `CUDA_VISIBLE_DEVICES` may show it some devices only.
CUDA itself counts the fastest first unless it is told otherwise, NVML by the PCI bus; so a device's
`selector` is its UUID, which means the same whatever counts.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, cast

import msgspec
import psutil

from trio_gateway.hardware.devices import Device, DeviceKind, Holder, NotReadable
from trio_gateway.hardware.names import process_name

VISIBLE = "CUDA_VISIBLE_DEVICES"
LIBRARY = "libnvidia-ml.so.1"  # as `pynvml` looks for it

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class _GpuProcess(Protocol):
    """A line of NVML's list of processes. Some drivers know the process but not its memory."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815


class _GpuMemory(Protocol):
    total: int
    free: int


class _Nvml(Protocol):
    """What is used here of `pynvml`, which has no types."""

    NVMLError: type[Exception]
    NVMLError_NotSupported: type[Exception]
    NVMLError_FunctionNotFound: type[Exception]
    NVMLError_NoPermission: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: object) -> list[int]: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: object) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: object, index: int
    ) -> object: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> _GpuMemory: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(  # noqa: N802
        self, handle: object
    ) -> list[_GpuProcess]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(  # noqa: N802
        self, handle: object
    ) -> list[_GpuProcess]: ...


class _Opened(msgspec.Struct, frozen=True):
    """`index`: as NVML counts, which is by the PCI bus; of a part of a device, its device's."""

    handle: object
    index: int
    uuid: str
    name: str


class Nvidia:
    """The first reading initialises NVML, which on a machine with a GPU may take long. Without a
    driver or a device, that is not tried again."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._nvml: _Nvml | None = None
        self._devices: Sequence[_Opened] | None = None

    def read(self) -> list[Device]:
        """
        Raises:
            NotReadable
        """
        with self._lock:
            if self._devices is None:
                self._devices = self._open()
            devices, nvml = self._devices, self._nvml
        if nvml is None:
            return []
        try:
            return [_read(nvml, device, f"cuda:{i}") for i, device in enumerate(devices)]
        except nvml.NVMLError as error:
            self._begin_anew()
            raise NotReadable(f"NVIDIA's driver: {error}") from None

    def _open(self) -> Sequence[_Opened]:
        if (nvml := _load()) is None:
            return ()
        try:
            nvml.nvmlInit()
            found = [*_opened(nvml)]
        except (nvml.NVMLError, OSError) as error:
            log.debug("no NVIDIA device: %s", error)
            return ()
        if found:
            self._nvml = nvml
        return visible(found, self._environ.get(VISIBLE))

    def _begin_anew(self) -> None:
        """What was opened is of no use once a device was lost, or its driver was replaced."""
        with self._lock:
            nvml, self._nvml, self._devices = self._nvml, None, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                log.debug("NVML cannot be closed: %s", error)


def _load() -> _Nvml | None:
    """`pynvml` takes 20 ms and 2 MB, and can do nothing without the library of NVIDIA's driver,
    which most machines do not have."""
    if "pynvml" not in sys.modules:
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:
            log.debug("no NVIDIA device: %s", error)
            return None
    return cast("_Nvml", importlib.import_module("pynvml"))


def visible(devices: Sequence[_Opened], variable: str | None) -> Sequence[_Opened]:
    """Those that the variable names, in its order; as CUDA does, up to the first that is none."""
    if variable is None:
        return devices
    shown: list[_Opened] = []
    for word in filter(None, (word.strip() for word in variable.split(","))):
        found = [d for d in devices if _is_named(d, word) and d not in shown]
        if not found:
            break
        shown.append(found[0])
    return shown


def _is_named(device: _Opened, word: str) -> bool:
    if word.isdecimal():
        return device.index == int(word)
    return word.startswith(("GPU-", "MIG-")) and device.uuid.startswith(word)


def _opened(nvml: _Nvml) -> Iterator[_Opened]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        # Of a device that is divided (MIG), programs get the parts.
        parts = [*_parts(nvml, handle)]
        for part in parts or [handle]:
            uuid = _asked(nvml, partial(nvml.nvmlDeviceGetUUID, part), "")
            name = _asked(nvml, partial(nvml.nvmlDeviceGetName, part), "")
            yield _Opened(part, index, str(uuid), str(name) or "NVIDIA GPU")


def _parts(nvml: _Nvml, handle: object) -> Iterator[object]:
    if not _asked(nvml, partial(nvml.nvmlDeviceGetMigMode, handle), [0])[0]:
        return
    for i in range(_asked(nvml, partial(nvml.nvmlDeviceGetMaxMigDeviceCount, handle), 0)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i)
        except nvml.NVMLError:
            continue  # places for parts need not be taken


def _read(nvml: _Nvml, device: _Opened, name: str) -> Device:
    holders = tuple(_holders(nvml, device.handle))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device.handle)
        total, free, shares_ram = int(memory.total), int(memory.free), False
    except nvml.NVMLError_NotSupported:  # it has no memory of its own (GB10, Jetson)
        ram = psutil.virtual_memory()
        total, free, shares_ram = int(ram.total), int(ram.available), True
    return Device(
        id=name,
        kind=DeviceKind.CUDA,
        name=device.name,
        total_bytes=total,
        free_bytes=free,
        holders=holders,
        shares_ram=shares_ram,
        selector=device.uuid or str(device.index),
    )


def _holders(nvml: _Nvml, handle: object) -> Iterator[Holder]:
    held: dict[int, int | None] = {}
    # A process that computes and draws is in both lists, with the same number.
    for list_processes in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        # Not every device and driver has both lists, or shows them to everybody.
        processes: list[_GpuProcess] = _asked(nvml, partial(list_processes, handle), [])
        for process in processes:
            size, before = process.usedGpuMemory, held.get(process.pid)
            told = [each for each in (size, before) if each is not None]
            held[process.pid] = max(told) if told else None
    for pid, held_bytes in held.items():
        yield Holder(pid, process_name(pid), held_bytes)


def _asked(nvml: _Nvml, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
    """What it says, or the other where the driver has no answer to this."""
    try:
        return ask()
    except (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_FunctionNotFound,
        nvml.NVMLError_NoPermission,
    ):
        return otherwise
