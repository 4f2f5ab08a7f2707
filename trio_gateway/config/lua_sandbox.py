"""Runs a configuration file in Lua 5.4 and hands back the globals that it left."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from lupa.lua54 import LuaError, LuaRuntime

from trio_gateway.config.presets import PresetError, preset

MEMORY_LIMIT_BYTES = 64 * 1024**2
INSTRUCTION_LIMIT = 50_000_000
HOOK_INTERVAL = 1_000_000  # instructions between two looks at the limit

# Lua's LUA_IDSIZE is 60 with its terminating zero: a longer chunk name loses its beginning.
_LUA_NAME_MAX = 59

LuaTable = Any  # lupa's table type has no public name
Answer = tuple[bool, str] | tuple[bool, str, str, str, str]


class LuaFailure(Exception):
    """The program did not run to its end; the message is `FILE:LINE: reason` where known."""


def run_file(path: Path) -> LuaTable:
    """Run the program and return the table of its globals.

    Raises:
        LuaFailure: a syntax or run-time error, or past one of the limits above.
    """
    chunk_names: list[str] = []
    lua = LuaRuntime(
        unpack_returned_tuples=True,
        register_eval=False,
        register_builtins=False,
        attribute_filter=_deny_attributes,
        max_memory=MEMORY_LIMIT_BYTES,
    )
    host = lua.table_from(
        {
            "getenv": os.environ.get,
            "read": _answering(lambda folder, name: _read(folder, name, chunk_names)),
            "find_gguf": _answering(_find_gguf),
            "preset": _answering(preset),
        }
    )
    prelude = (resources.files(__package__) / "prelude.lua").read_text(encoding="utf-8")
    try:
        run = lua.execute(prelude, host, INSTRUCTION_LIMIT, HOOK_INTERVAL)
        ok, result = run(str(path))
    except (LuaError, MemoryError, UnicodeDecodeError) as error:
        ok, result = False, str(error)
    if ok:
        return result
    message = _with_full_names(result, chunk_names)
    if message.strip() == "not enough memory":
        message = f"more than {MEMORY_LIMIT_BYTES // 1024**2} MiB of memory used"
    if not message.startswith(tuple(f"{name}:" for name in chunk_names)):
        message = f"{path}: {message}"
    raise LuaFailure(message)


def _deny_attributes(obj: object, name: object, setting: bool) -> NoReturn:
    raise AttributeError("a configuration has no access to Python")


def _answering(function: Callable[..., Any]) -> Callable[..., Answer]:
    """A Python exception must not become a Lua error value, which would be a Python object."""

    def call(*args: Any) -> Answer:
        try:
            result = function(*args)
        except (OSError, UnicodeDecodeError, PresetError) as error:
            return False, _reason(error)
        return (True, *result) if isinstance(result, tuple) else (True, result)

    return call


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: {error.reason} at byte {error.start}"
    return str(error)


def _read(folder: str, name: str, chunk_names: list[str]) -> tuple[str, str, str, str]:
    path = os.path.join(folder, os.path.expanduser(name))
    source = Path(path).read_text(encoding="utf-8")
    chunk_names.append(path)
    return source, path, os.path.dirname(path), os.path.realpath(path)


def _find_gguf(folder: str, name: str) -> str:
    top = Path(folder, os.path.expanduser(name)).absolute()
    if not top.is_dir():
        raise NotADirectoryError(20, "not a folder", str(top))
    return "\n".join(sorted(str(f) for f in top.rglob("*.gguf") if f.is_file()))


def _with_full_names(message: str, chunk_names: list[str]) -> str:
    for name in chunk_names:
        if len(name) > _LUA_NAME_MAX:
            message = message.replace("..." + name[-(_LUA_NAME_MAX - 3) :], name)
    return message
