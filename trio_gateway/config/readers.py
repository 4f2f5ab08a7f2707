"""Readers for what only a gateway's configuration has: engines, timeouts, the earlier manners."""

from __future__ import annotations

from typing import Any

from trio_gateway.config import fields
from trio_gateway.config.fields import Mistakes, Record
from trio_gateway.config.schema import EngineTimeouts, EngineType


def anything(mistakes: Mistakes, path: str, value: Any) -> Any:
    return value


def table_or_false(mistakes: Mistakes, path: str, value: Any) -> bool | None:
    """Whether there is a table; `false` stands for "not at all"."""
    if value is False or fields.is_table(value):
        return value is not False
    mistakes.expected(path, "a table, or false", value)
    return None


def timeouts(record: Record, outer: EngineTimeouts) -> EngineTimeouts:
    """The three timeouts of this table, each falling back on the table around it."""
    seconds = fields.positive_seconds
    return EngineTimeouts(
        health_check_s=record.read("health_check_timeout", seconds, outer.health_check_s),
        startup_s=record.read("engine_startup_timeout", seconds, outer.startup_s),
        idle_s=record.read("engine_idle_timeout", seconds, outer.idle_s),
        stop_s=outer.stop_s,
    )


def engine(mistakes: Mistakes, path: str, value: Any) -> EngineType | None:
    for known in EngineType:
        if value == known.value:
            return known
    words = ", ".join(f'"{known.value}"' for known in EngineType)
    mistakes.expected(path, f"one of presets.engines ({words})", value)
    return None


def words(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    """An array of strings, or one string of words (the earlier gateway's manner)."""
    if isinstance(value, str):
        return tuple(value.split())
    return fields.string_array(mistakes, path, value)
