"""Reads the table `pools`."""

from __future__ import annotations

import re
from typing import Any

from trio_gateway.config.engine_types import ENGINE_TYPES, UNLIMITED_ENGINES, EngineType
from trio_gateway.config.pool_schema import DEFAULT_RESERVE, PoolConfig, PoolDevice
from trio_gateway.config.reading import familiar_words, fields
from trio_gateway.config.reading.fields import Mistakes, Record

AUTO = "auto"
_LEAST_RESERVE = 2**20  # less is no size of memory, but a share in percent
_DEVICE = re.compile(r"([a-z_]+?):?(\d*)")
# As they are written, here and by llama.cpp (`CUDA0`, `ROCm0`, `Vulkan0`, `SYCL0`, `Metal`).
_KINDS = {
    "cuda": "cuda", "rocm": "rocm", "hip": "rocm", "vulkan": "vulkan", "vk": "vulkan",
    "sycl": "sycl", "oneapi": "sycl", "level_zero": "sycl", "metal": "metal", "cpu": "cpu",
}  # fmt: skip
_SINGLE = ("metal", "cpu")


def read_pools(mistakes: Mistakes, table: Any) -> dict[str, PoolConfig]:
    """The pools of the table `pools`, and the default pools of the engine types."""
    pools = {t.default_pool: _default_pool(t) for t in ENGINE_TYPES.values()}
    if table is not None and not fields.is_table(table):
        mistakes.expected("pools", "a table", table)
        return pools
    for name, raw in sorted((table or {}).items(), key=lambda entry: str(entry[0])):
        if not isinstance(name, str):
            mistakes.add("pools", f"expected names as keys, got {fields.show(name)}")
            continue
        record = Record(mistakes, f"pools.{name}", raw, familiar_words.POOL)
        pools[name] = _pool(mistakes, record, name, pools.get(name, PoolConfig(name)))
        record.finish()
    return pools


def _pool(mistakes: Mistakes, record: Record, name: str, default: PoolConfig) -> PoolConfig:
    engines = record.read("engines", fields.positive_int, 0)
    unlimited: int | str = 0
    memory = record.read("memory", _memory, unlimited)
    none: tuple[PoolDevice, ...] = ()
    devices = record.read("devices", _devices, none)
    pool = PoolConfig(
        name,
        engines=engines or max(default.engines, len(devices)),
        memory_bytes=None if isinstance(memory, str) else memory or None,
        longest_answer_s=record.read("longest_answer", fields.seconds, 0.0) or None,
        memory_auto=memory == AUTO,
        reserve=record.read("reserve", _reserve, DEFAULT_RESERVE),
        devices=devices,
    )
    if record.has("reserve") and not pool.is_watched:
        mistakes.add(
            record.field_path("reserve"),
            f'is for memory = "{AUTO}" and for devices; a size of memory is all that engines may '
            "use",
        )
    return pool


def _default_pool(engine: EngineType) -> PoolConfig:
    return PoolConfig(engine.default_pool, 1 if engine.has_process else UNLIMITED_ENGINES)


def _memory(mistakes: Mistakes, path: str, value: Any) -> int | str | None:
    if not isinstance(value, str) or any(c.isdigit() for c in value):
        return fields.size_bytes(mistakes, path, value)
    if value.strip() == AUTO:
        return AUTO
    hint = fields.nearest(value, (AUTO,))
    mistakes.add(
        path, f'expected "{AUTO}" or a size such as "24GiB", got {fields.show(value)}{hint}'
    )
    return None


def _reserve(mistakes: Mistakes, path: str, value: Any) -> float | int | None:
    """A share below 1, or bytes."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        value = float(match[1]) / 100
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    if isinstance(value, str) or (isinstance(value, int | float) and value >= _LEAST_RESERVE):
        return fields.size_bytes(mistakes, path, value)
    what = 'a share such as 0.05, or a size such as "1GiB"'
    mistakes.expected(path, what, value)
    return None


def _devices(mistakes: Mistakes, path: str, value: Any) -> tuple[PoolDevice, ...] | None:
    """An array of names, or a table of sizes by name, or both in one."""
    what = 'an array of devices, such as { "cuda:0", "cuda:1" }'
    if not fields.is_table(value):
        mistakes.expected(path, what, value)
        return None
    found: list[PoolDevice] = []
    for key, entry in sorted(value.items(), key=lambda item: (isinstance(item[0], str), item[0])):
        if isinstance(key, bool) or not isinstance(key, int | str):
            mistakes.add(path, f"expected {what}, got the key {fields.show(key)} in it")
            continue
        at = f"{path}[{fields.show(key)}]"
        name = _device_name(mistakes, at, entry if isinstance(key, int) else key)
        size = fields.size_bytes(mistakes, at, entry) if isinstance(key, str) else None
        if name is not None and any(name == device.name for device in found):
            mistakes.add(at, f"{name} is there twice")
        elif name is not None:
            found.append(PoolDevice(name, size))
    return tuple(found)


def _device_name(mistakes: Mistakes, path: str, value: Any) -> str | None:
    match = _DEVICE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    kind = _KINDS.get(match[1]) if match is not None else None
    if match is None or kind is None or (kind in _SINGLE) is not (match[2] == ""):
        what = '"cuda:0", "rocm:0", "vulkan:0", "sycl:0", "metal" or "cpu"'
        mistakes.add(path, f"expected a device such as {what}, got {fields.show(value)}")
        return None
    return kind if kind in _SINGLE else f"{kind}:{int(match[2])}"
