"""What can be said of one device, whoever makes it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec


class DeviceKind(enum.Enum):
    """The value begins a device's id."""

    CUDA = "cuda"
    ROCM = "rocm"
    METAL = "metal"
    CPU = "cpu"


class Holder(msgspec.Struct, frozen=True):
    """A process that holds memory of a device. `name` empty, `held_bytes` None: not told, as of a
    process outside the gateway's container."""

    pid: int
    name: str = ""
    held_bytes: int | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device at one moment.

    `id`: `cuda:0`, `rocm:1`, `metal`, `cpu`; the number is the one that an engine gets to see,
    where the gateway's own environment shows it some devices only. `free_bytes`: what a program
    could take now. `holders`: those that the driver names. `shares_ram`: its memory is the
    machine's. `selector`: what names it in the driver's variable (`CUDA_VISIBLE_DEVICES`), in
    whatever order that counts.
    """

    id: str
    kind: DeviceKind
    name: str
    total_bytes: int
    free_bytes: int
    holders: tuple[Holder, ...] = ()
    shares_ram: bool = False
    selector: str = ""

    @property
    def used_bytes(self) -> int:
        return max(self.total_bytes - self.free_bytes, 0)

    @property
    def is_gpu(self) -> bool:
        return self.kind is not DeviceKind.CPU

    @property
    def held(self) -> Mapping[int, int]:
        """What each process holds, by its id; 0 where the driver knows it, but not how much."""
        return {holder.pid: holder.held_bytes or 0 for holder in self.holders}


class Reading(msgspec.Struct, frozen=True):
    """All devices at one moment, GPUs first and the RAM last. `faults`: what could not be read, one
    sentence each; the devices are not all then."""

    devices: tuple[Device, ...]
    faults: tuple[str, ...] = ()

    @property
    def gpus(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.is_gpu)

    def device(self, wanted: str) -> Device | None:
        return next((device for device in self.devices if device.id == wanted), None)


class NotReadable(Exception):
    """A driver is there and did not answer."""


class Hardware(Protocol):
    """Where readings come from: the machine, or what a test says."""

    def read(self) -> Reading:
        """Blocks; may be called from any thread. Raises nothing that a driver comes up with."""
        ...
