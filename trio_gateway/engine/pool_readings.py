"""What a reading of the machine's devices says of pools: whose memory is whose. Pure but for /proc.

What other programs hold is what is in use, less what engines hold. Where the driver names processes
otherwise than they are called here (in a container), or names none, what the engines hold is what
is known of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.memory_events import WHOLE, Holding, PlaceSeen
from trio_gateway.hardware.devices import Device, DeviceKind, Reading
from trio_gateway.hardware.names import process_name

# A driver that names nobody and has this much in use does not want to name anybody.
_NAMELESS_BYTES = 512 * 2**20
_NAMED = 8
_LOCKED = re.compile(r"^VmLck:\s*(\d+) kB$", re.MULTILINE)


class PoolsEngines(msgspec.Struct, frozen=True):
    """Of one pool: the process groups of its engines, and what is known of what those hold; None:
    one of them loads, and nobody knows."""

    groups: frozenset[int] = frozenset()
    known_bytes: int | None = 0


def others_of(reading: Reading, engines: Mapping[str, PoolsEngines]) -> dict[str, int | None]:
    """By pool, the bytes that no engine holds: of the devices that its engines use, or of the only
    one there is; without any, of the machine. None: that cannot be told."""
    if reading.faults:
        return dict.fromkeys(engines)
    ours = frozenset(group for pool in engines.values() for group in pool.groups)
    if not reading.gpus:
        ram = reading.device("cpu")
        others = None if ram is None else max(ram.used_bytes - _of_ram(ours), 0)
        return dict.fromkeys(engines, others)
    return {name: _of_gpus(reading.gpus, pool.groups, ours) for name, pool in engines.items()}


def _of_gpus(devices: Sequence[Device], its: frozenset[int], ours: frozenset[int]) -> int | None:
    used = [device for device in devices if _held_by(device, its)]
    if not its and len(devices) == 1:
        used = [*devices]
    # In a container the driver may name processes by other ids: then whose is whose is not known.
    return sum(max(d.used_bytes - _held_by(d, ours), 0) for d in used) if used else None


def places_of(
    reading: Reading, pool: PoolConfig, engines: Mapping[str, PoolsEngines], *, names: bool = False
) -> tuple[PlaceSeen, ...] | None:
    """What the places of a pool's memory are like; one that cannot be read is missing. None: it
    cannot be told in this moment.

    Args:
        names: say who holds the RAM, which takes 30 µs for each process of the machine.
    """
    own = engines.get(pool.name, PoolsEngines())
    if pool.devices:
        found = [(d.name, _device(reading, d.name)) for d in pool.devices if d.memory_bytes is None]
        seen = [
            _seen(device, place, own, engines, pool.name, names=names)
            for place, device in found
            if device is not None
        ]
        return None if None in seen else tuple(each for each in seen if each is not None)
    parts = [
        _seen(device, WHOLE, own, engines, pool.name, names=names)
        for device in usual_devices(reading)
    ]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return (_together(known),) if known else ()


def usual_devices(reading: Reading) -> Sequence[Device]:
    """Those that llama.cpp uses if nobody says otherwise: all GPUs of one kind, those without
    memory of their own last; without a GPU, the RAM."""
    gpus = [device for device in reading.gpus if not device.shares_ram] or reading.gpus
    if gpus:
        return [device for device in gpus if device.kind is gpus[0].kind]
    return [device for device in reading.devices if device.kind is DeviceKind.CPU]


def _device(reading: Reading, name: str) -> Device | None:
    """By its id. Of a kind that no driver tells about (Vulkan, SYCL), the only GPU there is."""
    if (found := reading.device(name)) is not None:
        return found
    is_told = name.partition(":")[0] in {kind.value for kind in DeviceKind}
    return reading.gpus[0] if not is_told and len(reading.gpus) == 1 else None


def _seen(
    device: Device,
    place: str,
    own: PoolsEngines,
    engines: Mapping[str, PoolsEngines],
    pool: str,
    *,
    names: bool,
) -> PlaceSeen | None:
    held = _held_by(device, own.groups)
    if device.holders or device.kind in (DeviceKind.CUDA, DeviceKind.ROCM):
        if own.groups and not held and _is_nameless(device):
            if own.known_bytes is None:
                return None
            held = own.known_bytes
    else:
        held = _of_ram(own.groups)
    others = max(device.used_bytes - held, 0)
    return PlaceSeen(
        place, device.total_bytes, others, _holders(device, own, engines, pool, names=names)
    )


def _is_nameless(device: Device) -> bool:
    if not device.holders:
        return device.used_bytes > _NAMELESS_BYTES
    return any(not h.name and _group_of(h.pid) is None for h in device.holders)


def _holders(
    device: Device,
    own: PoolsEngines,
    engines: Mapping[str, PoolsEngines],
    pool: str,
    *,
    names: bool,
) -> tuple[Holding, ...]:
    """The others that are known by name, each once. Engines of other pools are others as well."""
    of_pool = {group: name for name, each in engines.items() for group in each.groups}
    if names and not device.holders and device.shares_ram:
        found = _in_ram()
    else:
        found = [(h.pid, h.name, h.held_bytes) for h in device.holders]
    sizes: dict[str, int | None] = {}
    for pid, name, size in found:
        if (group := _group_of(pid)) is not None and group in own.groups:
            continue
        other = of_pool.get(group) if group is not None else None
        called = name if other is None or other == pool else f"the pool {other}"
        if called:
            before = sizes.get(called, 0)
            sizes[called] = None if size is None or before is None else before + size
    largest = sorted(sizes.items(), key=lambda each: -(each[1] or 0))
    return tuple(Holding(name, size) for name, size in largest[:_NAMED])


def _in_ram() -> list[tuple[int, str, int | None]]:
    sizes: list[tuple[int, int]] = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            sizes.append((_unshared(pid), pid))
    largest = sorted(sizes, reverse=True)[:_NAMED]
    return [(pid, process_name(pid), size) for size, pid in largest]


def _together(parts: Sequence[PlaceSeen]) -> PlaceSeen:
    holders = [holder for part in parts for holder in part.holders]
    sizes: dict[str, int | None] = {}
    for holder in holders:
        before = sizes.get(holder.name, 0)
        known = before is not None and holder.held_bytes is not None
        sizes[holder.name] = (before or 0) + (holder.held_bytes or 0) if known else None
    largest = sorted(sizes.items(), key=lambda each: -(each[1] or 0))
    return PlaceSeen(
        WHOLE,
        sum(part.total_bytes for part in parts),
        sum(part.others_bytes for part in parts),
        tuple(Holding(name, size) for name, size in largest),
    )


def _held_by(device: Device, groups: Collection[int]) -> int:
    if not groups:
        return 0
    return sum(size for pid, size in device.held.items() if _group_of(pid) in groups)


def _of_ram(groups: Collection[int]) -> int:
    """What these hold of the RAM. What is mapped from a file can be given back, and is not in use
    by this measure, unless it is locked."""
    held = 0
    for pid in psutil.pids() if groups else ():
        if _group_of(pid) in groups:
            with suppress(psutil.Error, OSError):
                held += _unshared(pid)
    return held


def _unshared(pid: int) -> int:
    info = psutil.Process(pid).memory_info()
    shared = int(getattr(info, "shared", 0))
    locked = 0
    if shared:
        with suppress(OSError):
            match = _LOCKED.search(Path(f"/proc/{pid}/status").read_text())
            locked = int(match[1]) * 1024 if match else 0
    return int(info.rss) - max(shared - locked, 0)


def _group_of(pid: int) -> int | None:
    """None: it is not there, or not to be seen."""
    if not hasattr(os, "getpgid"):  # Windows: an engine is one process
        return pid
    try:
        return os.getpgid(pid)
    except OSError:
        return None
