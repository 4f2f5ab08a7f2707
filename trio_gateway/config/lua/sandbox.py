"""Runs a configuration file in Lua 5.4 and hands back the globals that it left."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lupa.lua54 import LuaError, LuaRuntime

from trio_gateway.config.lua.messages import with_hint
from trio_gateway.config.lua.presets import PresetError, preset
from trio_gateway.config.reading.fields import printable

MEMORY_LIMIT_BYTES = 64 * 1024**2
INSTRUCTION_LIMIT = 50_000_000
HOOK_INTERVAL = 1_000_000  # instructions between two looks at the limit

# What Lua takes for the names of files. It cuts a real name after 59 bytes, even inside of a
# character, so that messages get the real names here, afterwards.
_CHUNK_NAME = re.compile("\x01([0-9]+)\x01")

_PLACE = re.compile("\x01([0-9]+)\x01:([0-9]+):")

LuaTable = Any  # lupa's table type has no public name
Answer = tuple[bool, str] | tuple[bool, str, str, str, str]


class _File(NamedTuple):
    """One that has been read, and its text."""

    path: str
    source: str


class LuaFailure(Exception):
    """The program did not finish; the message is `FILE:LINE: reason` where known."""


def run_file(path: Path) -> LuaTable:
    """Run the program and return the table of its globals.

    Raises:
        LuaFailure: a syntax or run-time error, or past one of the limits above.
    """
    files: list[_File] = []
    lua = LuaRuntime(
        unpack_returned_tuples=True,
        register_eval=False,
        register_builtins=False,
        attribute_filter=_deny_attributes,
        max_memory=MEMORY_LIMIT_BYTES,
    )
    host = lua.table_from(
        {
            "getenv": _answering(_getenv),
            "read": _answering(lambda folder, name: _read(folder, name, files)),
            "find_gguf": _answering(_find_gguf),
            "preset": _answering(preset),
        }
    )
    prelude = (resources.files(__package__) / "prelude.lua").read_text(encoding="utf-8")
    try:
        run = lua.execute(prelude, host, INSTRUCTION_LIMIT, HOOK_INTERVAL)
        ok, result = run(str(path))
    except (LuaError, MemoryError) as error:
        ok, result = False, str(error)
    except UnicodeError:
        ok, result = False, "the file's name is not UTF-8 text"
    if ok:
        lua.set_max_memory(0)  # the limit is for the program, not for reading what it left
        return result
    if result.strip() == "not enough memory":
        result = f"more than {MEMORY_LIMIT_BYTES // 1024**2} MiB of memory used"
    names_its_file = _CHUNK_NAME.match(result) or result.startswith(f"{path}:")
    message = result if names_its_file else f"{path}: {result}"
    message = with_hint(message, _line_of(message, files))
    raise LuaFailure(printable(_with_real_names(message, files)))


def _deny_attributes(obj: object, name: object, setting: bool) -> NoReturn:
    raise AttributeError("a configuration has no access to Python")


def _answering(function: Callable[..., Any]) -> Callable[..., Answer]:
    """A Python exception must not become a Lua error value, which would be a Python object."""

    def call(*args: Any) -> Answer:
        try:
            result = function(*args)
        except (OSError, ValueError, PresetError) as error:
            return False, _reason(error)
        return (True, *result) if isinstance(result, tuple) else (True, result)

    return call


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"line {line} is not UTF-8 text ({error.reason} at byte {error.start} of the file)"
    if isinstance(error, UnicodeEncodeError):
        return "a value that is not UTF-8 text"
    return str(error)


def _getenv(name: str) -> str | None:
    value = os.environ.get(name)
    if value is not None:
        value.encode("utf-8")
    return value


def _read(folder: str, name: str, files: list[_File]) -> tuple[str, str, str, str]:
    path = os.path.join(folder, os.path.expanduser(name))
    source = Path(path).read_text(encoding="utf-8-sig")
    if source.startswith("#"):
        source = f"--{source}"  # as Lua's own `dofile`: a first line for the shell
    files.append(_File(path, source))
    return source, f"\x01{len(files) - 1}\x01", os.path.dirname(path), os.path.realpath(path)


def _find_gguf(folder: str, name: str) -> str:
    top = Path(folder, os.path.expanduser(name)).absolute()
    if not top.is_dir():
        raise NotADirectoryError(20, "not a folder", str(top))
    return "\n".join(sorted(str(f) for f in top.rglob("*.gguf") if f.is_file()))


def _line_of(message: str, files: list[_File]) -> str:
    """The line that a message is about; empty if it does not say, or the file is not known."""
    match = _PLACE.match(message)
    if match is None or int(match[1]) >= len(files):
        return ""
    lines = files[int(match[1])].source.splitlines()
    return lines[int(match[2]) - 1] if 0 < int(match[2]) <= len(lines) else ""


def _with_real_names(message: str, files: list[_File]) -> str:
    def name(match: re.Match[str]) -> str:
        index = int(match[1])
        return files[index].path if index < len(files) else match[0]

    return _CHUNK_NAME.sub(name, message)
