"""Readers for what only a gateway's configuration has: engines, timeouts, the earlier manners."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from trio_gateway.config import fields
from trio_gateway.config.engine_types import ENGINE_TYPES, EngineType
from trio_gateway.config.fields import Mistakes, Record
from trio_gateway.config.schema import EngineTimeouts


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
    if isinstance(value, str) and value in ENGINE_TYPES:
        return ENGINE_TYPES[value]
    words = ", ".join(f'"{known}"' for known in ENGINE_TYPES)
    mistakes.expected(path, f"one of presets.engines ({words})", value)
    return None


def words(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    """An array of strings, or one string of words (the earlier gateway's manner)."""
    if isinstance(value, str):
        return tuple(value.split())
    return fields.string_array(mistakes, path, value)


def resolve(folder: Path, path: str) -> Path:
    """Relative paths begin at the folder of the configuration."""
    return folder / os.path.expanduser(path)


def resolve_binary(folder: Path, binary: str) -> str:
    """A bare name is looked up on PATH; whether the file is there is the engine's affair."""
    if binary and "/" not in binary and os.sep not in binary:
        return shutil.which(binary) or binary
    return str(resolve(folder, binary)) if binary else ""
