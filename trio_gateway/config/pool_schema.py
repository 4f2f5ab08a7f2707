"""What a checked configuration has of pools: engines that share a memory."""

from __future__ import annotations

import msgspec

DEFAULT_RESERVE = 0.05  # of a device's memory

# By kind of device, what tells a program which ones it may use, the one that is set first.
VARIABLES = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "rocm": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    "vulkan": ("GGML_VK_VISIBLE_DEVICES",),
    "sycl": ("ONEAPI_DEVICE_SELECTOR",),
}


class PoolDevice(msgspec.Struct, frozen=True):
    """A device of a pool, such as `cuda:0`. `memory_bytes`: what engines may hold of it, or None:
    what is free."""

    name: str
    memory_bytes: int | None = None

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


class PoolConfig(msgspec.Struct, frozen=True):
    """Engines that share one memory: at most `engines` of them at a time.

    `memory_bytes`: what they may hold together, or None: no limit, or, with `memory_auto`, what
    other programs leave of the device, less the reserve: a share of it, or bytes.
    `longest_answer_s`: an answer ends after this long if others wait; None: it goes on. `devices`:
    each engine is placed on one of them, or on as many as its variant wants; none: as it likes.
    """

    name: str
    engines: int = 1
    memory_bytes: int | None = None
    longest_answer_s: float | None = None
    memory_auto: bool = False
    reserve: float | int = DEFAULT_RESERVE
    devices: tuple[PoolDevice, ...] = ()

    @property
    def is_watched(self) -> bool:
        """Whether what its engines may hold depends on what other programs do."""
        return self.memory_auto or any(d.memory_bytes is None for d in self.devices)

    @property
    def is_limited(self) -> bool:
        return self.memory_bytes is not None or self.memory_auto or bool(self.devices)

    def declared(self, device: str) -> int | None:
        """What engines may hold of it, if that is configured."""
        return next((d.memory_bytes for d in self.devices if d.name == device), None)

    def reserved_of(self, total_bytes: int) -> int:
        """What nobody of the gateway's takes of a device. A share is below 1."""
        return int(total_bytes * self.reserve if self.reserve < 1 else self.reserve)
