"""Reads the table `pools`."""

from __future__ import annotations

from typing import Any

from trio_gateway.config.engine_types import ENGINE_TYPES, UNLIMITED_ENGINES, EngineType
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.reading import familiar_words, fields
from trio_gateway.config.reading.fields import Mistakes, Record


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
        default = pools.get(name, PoolConfig(name))
        pools[name] = PoolConfig(
            name,
            engines=record.read("engines", fields.positive_int, default.engines),
            memory_bytes=record.read("memory", fields.size_bytes, 0) or None,
            longest_answer_s=record.read("longest_answer", fields.seconds, 0.0) or None,
        )
        record.finish()
    return pools


def _default_pool(engine: EngineType) -> PoolConfig:
    return PoolConfig(engine.default_pool, 1 if engine.has_process else UNLIMITED_ENGINES)
