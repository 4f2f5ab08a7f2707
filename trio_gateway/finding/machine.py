"""How much memory the models that are found may have together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.finding.engines import Engine
from trio_gateway.finding.plan import size_text
from trio_gateway.hardware.devices import Device, Reading

# What is left to the driver, the desktop, and what no estimate of an engine has.
_GPU_SHARE = 0.9
_SHARED_SHARE = 0.95  # of what the system leaves to a GPU that uses the machine's memory
_RAM_SHARE = 0.75


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_bytes`: for all engines together; None: nobody knows. `words`: what it is the memory
    of. `is_gpu`: engines are to use all of their layers there. `is_watched`: the gateway can see
    what other programs have of it."""

    memory_bytes: int | None
    words: str
    is_gpu: bool
    is_watched: bool = False


def room_of(reading: Reading, engine: Engine | None) -> Room:
    """On the GPUs that the engine can use, otherwise in the machine's memory. Pure."""
    gpus = _usual(reading)
    uses_gpu = engine.uses_gpu if engine is not None else None
    if uses_gpu is not False and gpus:
        share = _SHARED_SHARE if all(d.shares_ram for d in gpus) else _GPU_SHARE
        words = " and ".join(f"{d.name}, {size_text(d.total_bytes)}" for d in gpus)
        total = sum(d.total_bytes for d in gpus)
        return Room(memory_bytes=int(total * share), words=words, is_gpu=True, is_watched=True)
    if uses_gpu and engine is not None and engine.devices:
        words = " and ".join(f"{name}, {size_text(size)}" for name, size in engine.devices)
        total = sum(size for _, size in engine.devices)
        return Room(memory_bytes=int(total * _GPU_SHARE), words=words, is_gpu=True)
    ram = reading.device("cpu")
    if ram is None:
        return Room(memory_bytes=None, words="memory of unknown size", is_gpu=False)
    words = f"{size_text(ram.total_bytes)} of memory, no GPU"
    if gpus:
        words = (
            f"{size_text(ram.total_bytes)} of memory, as the engine cannot use the {gpus[0].name}"
        )
    return Room(memory_bytes=int(ram.total_bytes * _RAM_SHARE), words=words, is_gpu=False)


def _usual(reading: Reading) -> Sequence[Device]:
    """Those that llama.cpp uses if nobody says otherwise: all of one kind, and with memory of their
    own if there are such."""
    gpus = [device for device in reading.gpus if not device.shares_ram] or reading.gpus
    return [device for device in gpus if device.kind is gpus[0].kind]
