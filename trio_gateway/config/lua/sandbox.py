"""Runs a configuration file in Lua 5.4 and hands back the globals that it left.

The program runs in a process of its own, with limits. It is asked here for what the file names of
the environment, so that it knows no other secrets.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trio_gateway.config.lua import helper, program
from trio_gateway.config.lua.messages import with_hint
from trio_gateway.config.lua.presets import PresetError, preset
from trio_gateway.config.lua.program import Refused
from trio_gateway.config.lua.values import Table, table_from
from trio_gateway.config.reading.fields import printable

if TYPE_CHECKING:
    from trio_gateway.config.lua.discovering import Discovered


class LuaFailure(Exception):
    """The program did not finish; the message is `FILE:LINE: reason` where known. `files`: those
    that it wanted, as far as that is known."""

    def __init__(self, message: str, files: tuple[Path, ...] = ()) -> None:
        super().__init__(message)
        self.files = files


class Outcome(NamedTuple):
    """What a program left, and the variables of the environment and the files that it has read.
    `watched`: folders and files that `discover` has looked at; None: it was not called."""

    globals: Table
    variables: Mapping[str, str]
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    watched: tuple[Path, ...] | None = None


def run_file(path: Path, wanted: Collection[str] | None = None) -> Outcome:
    """Run the program.

    `wanted`: the globals that are needed; tables at other names are empty. None: all are.
    Blocks for some 25 ms, and at most for `helper.END_S`.

    Raises:
        LuaFailure: a syntax or run-time error, or past one of the limits of `program.py`.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise LuaFailure(printable(f"{path}: the file's name is not UTF-8 text")) from None
    variables: dict[str, str] = {}
    discovered: list[Discovered] = []
    names = None if wanted is None else sorted(wanted)
    try:
        with _opened(path) as fd:
            last = helper.run_program(
                os.fspath(path), fd, names, lambda asked: _answer(asked, variables, discovered)
            )
    except helper.HelperFailed as error:
        raise LuaFailure(printable(f"{path}: {error}")) from None
    if "globals" in last:
        files = tuple(Path(name) for name in last["files"])
        notes = [note for found in discovered for note in found.notes]
        remarks = tuple(map(printable, (*last["remarks"], *notes)))
        paths = dict.fromkeys(Path(path) for found in discovered for path in found.watched)
        watched = tuple(paths) if discovered else None
        return Outcome(table_from(last["globals"]), variables, files, remarks, watched)
    message = _message(path, last["failed"], last["line"], last["files"])
    raise LuaFailure(message, tuple(map(Path, last.get("tried", ()))))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The file, for the helper to read. A pipe is opened at once, whoever writes to it."""
    if not helper.HAS_FDS:
        yield None
        return
    try:
        fd = _not_a_standard_one(os.open(os.path.expanduser(path), os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        raise LuaFailure(printable(f"{path}: {error.strerror}")) from None
    except ValueError:  # a NUL byte
        raise LuaFailure(printable(f"{path}: not a path")) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _not_a_standard_one(fd: int) -> int:
    """The same file above 2: where this process has no stdin, a file that it opens becomes it, and
    the helper has a stdin of its own."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _answer(
    asked: Mapping[str, Any], variables: dict[str, str], discovered: list[Discovered]
) -> object:
    """What the program asks for. Raises Refused."""
    if "discover" in asked:
        # Imported here: few configurations need it.
        from trio_gateway.config.lua.discovering import DiscoverError, Request, discover

        try:
            found = discover(Request(**asked["discover"]))
        except DiscoverError as error:
            raise Refused(str(error)) from None
        discovered.append(found)
        return found.models
    if "preset" in asked:
        try:
            return preset(*asked["preset"])
        except (OSError, ValueError, PresetError) as error:
            raise Refused(str(error)) from None
    name = asked["getenv"]
    value = os.environ.get(name)
    if value is None:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("a value that is not UTF-8 text") from None
    variables[name] = value
    return value


def _message(path: Path, failed: str, line: str, files: list[str]) -> str:
    names_its_file = program.CHUNK_NAME.match(failed) or failed.startswith(f"{path}:")
    message = with_hint(failed if names_its_file else f"{path}: {failed}", line)
    parts = program.CHUNK_NAME.split(message)  # every second one is a number
    parts[1::2] = [files[int(n)] if int(n) < len(files) else n for n in parts[1::2]]
    return printable("".join(parts))
