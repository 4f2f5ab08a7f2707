"""What runs a configuration in Lua 5.4, with its limits: the program of the helper process.

`helper.py` starts it with `python -I -S`, and this as a module, which Python need not compile anew.
It imports lupa and a little of the standard library: it has begun after 20 ms. It inherits no
variables, but asks for those that the configuration names. One JSON object a line:

    in   {"path": "gateway.lua", "fd": 3, "wanted": ["server", "models"]}
    out  {"getenv": "HOME"}                 in  {"value": "/home/me"}, or {"failure": "why"}
    out  {"preset": ["engines", "openai"]}  in  the same
    out  {"discover": {"folders": ["/srv/models"], …}}  in  {"value": [model, …]}
    out  {"globals": [key, value, …], "files": [path, …], "remarks": [text, …]},
         or {"failed": message, "line": text, "files": [path, …], "tried": [path, …]}

A value is JSON's own, but for a table, which is an array of its keys and values in Lua's order,
and for what JSON has not: {"kind": "function"}, {"float": "inf"}.

Its limits hold on Linux and on macOS. Lua's own memory is bounded by lupa's allocator, what is read
from files and what is handed back by numbers of bytes, and its instructions are counted. What none
of that sees (a search that goes on for ever inside of one of Lua's functions in C) is ended by a
thread that watches the time, the memory and the parent, as lupa lets other threads run meanwhile;
and by the kernel's own limits where it keeps them.
"""

from __future__ import annotations

import _thread
import contextlib
import enum
import errno
import importlib
import json
import os
import re
import select
import stat
import sys
import time

TYPE_CHECKING = False  # typing's own takes 2 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO, NoReturn

    Ask = Callable[[dict[str, object]], Any]

MEMORY_LIMIT_BYTES = 64 << 20  # Lua's own
PROCESS_LIMIT_BYTES = 512 << 20  # on top of what Python has at its start
INSTRUCTION_LIMIT = 50_000_000
HOOK_INTERVAL = 1_000  # instructions between two looks at the limits
FILE_LIMIT_BYTES = 4 << 20
FILES_LIMIT_BYTES = 64 << 20  # of all different files
MOST_VALUES = 50_000  # handed back, in all tables
MOST_TEXT_BYTES = 16 << 20  # handed back, in all strings
DEEPEST_TABLE = 100
LONGEST_MESSAGE = 4_000  # characters
LONGEST_NAME = 65_536  # of a variable: no system has longer ones

# What Lua takes for the names of files. It cuts a real name after 59 bytes, even inside of a
# character, so that messages get the real names afterwards.
CHUNK_NAME = re.compile("\x01([0-9]+)\x01")
_PLACE = re.compile("\x01([0-9]+)\x01:([0-9]+):")

_WATCH_S = 0.02
# Lua's own look at the time comes first, as it knows the line; the kernel is last.
_WATCH_GRACE_S = 0.5
_KERNEL_GRACE_S = 2


class Ending(enum.IntEnum):
    """The exit codes by which it says why it ended itself."""

    ORPHAN = 3
    TOO_LONG = 4
    TOO_LARGE = 5


class Refused(Exception):
    """The parent has no value; the message says why."""


def run(
    path: str, fd: int | None, wanted: Sequence[str] | None, cpu_limit_s: float, ask: Ask
) -> dict[str, object]:
    """Run the program and give the last line of the conversation, as above.

    `fd`: the open file, otherwise it is opened by its path. `wanted`: the globals whose tables are
    handed back; of others only their kind is. None: all of them.
    """
    from lupa.lua54 import LuaError, LuaRuntime  # the parent, which runs nothing, does not load it

    folders = importlib.import_module(f"{__package__}.folders" if __package__ else "folders")
    files = _Files(path, fd)
    lua = LuaRuntime(
        unpack_returned_tuples=True,
        register_eval=False,
        register_builtins=False,
        attribute_filter=_deny_attributes,
        max_memory=MEMORY_LIMIT_BYTES,
    )
    remarks: list[str] = []
    host: dict[str, Callable[..., Any]] = {
        "getenv": lambda name: ask({"getenv": name}) if len(name) < LONGEST_NAME else None,
        "preset": lambda kind, name: ask({"preset": [kind, name[:LONGEST_NAME]]}),
        "read": files.read,
        "find_gguf": folders.finder(remarks),
        "discover": folders.discoverer(lua, ask),
    }
    answering = lua.table_from({name: _answering(function) for name, function in host.items()})
    with open(os.path.join(os.path.dirname(__file__), "prelude.lua"), encoding="utf-8") as file:
        prelude = file.read()
    limits = (INSTRUCTION_LIMIT, HOOK_INTERVAL, cpu_limit_s)
    try:
        start, flatten = lua.execute(prelude, answering, *limits)
        ok, result = start(path)
    except (LuaError, MemoryError) as error:
        ok, result = False, str(error)
    if ok:
        lua.set_max_memory(0)  # the limit is for the program, not for handing back what it left
        names = None if wanted is None else lua.table_from(dict.fromkeys(wanted, True))
        left, too_much = flatten(result, names, MOST_VALUES, MOST_TEXT_BYTES, DEEPEST_TABLE)
        if left is not None:
            return {"globals": _plain(left), "files": files.paths, "remarks": remarks}
        result = f"{too_much} in the tables that it leaves"
    result = str(result)[:LONGEST_MESSAGE]
    if result.strip() == "not enough memory":
        result = f"more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory used"
    return {"failed": result, "line": files.line_of(result), "files": files.paths,
            "tried": files.tried}  # fmt: skip


def _plain(value: Any) -> object:
    """What the prelude's `flatten` made of a value, as JSON has it."""
    if isinstance(value, float):
        is_finite = value - value == 0
        return value if is_finite else {"float": str(value)}
    if not hasattr(value, "values"):
        return value
    kind = value["kind"]
    return {"kind": kind} if kind is not None else [_plain(entry) for entry in value.values()]


def _deny_attributes(obj: object, name: object, setting: bool) -> NoReturn:
    raise AttributeError("a configuration has no access to Python")


def _answering(function: Callable[..., Any]) -> Callable[..., tuple[object, ...]]:
    """A Python exception must not become a Lua error value, which would be a Python object."""

    def call(*args: Any) -> tuple[object, ...]:
        try:
            result = function(*args)
        except (OSError, ValueError, MemoryError, Refused) as error:
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
    if isinstance(error, MemoryError):
        return "not enough memory"
    return str(error)


class _Files:
    """The files that a configuration is made of: read with a limit, and kept for messages."""

    def __init__(self, path: str, fd: int | None) -> None:
        self._top, self._fd = path, fd
        self.paths: list[str] = []  # by the number in the chunk's name
        self.tried: list[str] = []  # those that could not be read as well
        self._identities: list[str] = []
        self._sources: dict[str, bytes] = {}

    def read(self, folder: str, name: str) -> tuple[str, str, str, str]:
        """Its text, and the names by which Lua and the prelude know it."""
        path = os.path.join(folder, os.path.expanduser(name))
        self.tried.append(path)
        if not self.paths:
            data, identity = self._read_top()
        else:
            data, identity = _read_regular(path)
        self._sources[identity] = data
        if sum(map(len, self._sources.values())) > FILES_LIMIT_BYTES:
            raise ValueError(f"more than {FILES_LIMIT_BYTES >> 20} MiB of files")
        source = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        if source.startswith("#"):
            source = f"--{source}"  # as Lua's own `dofile`: a first line for the shell
        self.paths.append(path)
        self._identities.append(identity)
        return source, f"\x01{len(self.paths) - 1}\x01", os.path.dirname(path), identity

    def line_of(self, message: str) -> str:
        """The line that a message is about; empty if it does not say, or the file is not known."""
        match = _PLACE.match(message)
        if match is None or int(match[1]) >= len(self.paths):
            return ""
        source = self._sources[self._identities[int(match[1])]]
        lines = source.decode("utf-8-sig").splitlines()
        number = int(match[2])
        return lines[number - 1][:LONGEST_MESSAGE] if 0 < number <= len(lines) else ""

    def _read_top(self) -> tuple[bytes, str]:
        """The configuration itself, which may be a pipe: it was chosen by whoever starts us."""
        if self._fd is None:
            return _read_regular(self._top)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            select.select([self._fd], [], [])  # a pipe that nobody has opened to write to it yet
            os.set_blocking(self._fd, True)
        return _read_all(self._fd, self._top)


def _read_regular(path: str) -> tuple[bytes, str]:
    """The bytes of a file, and what makes out this file, whatever its path. Never waits.

    Raises:
        OSError: also if it is no regular file, such as a device or a pipe.
    """
    _check_regular(os.stat(path), path)  # before it is opened: some devices act on that
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(fd), path)
        return _read_all(fd, path)
    finally:
        os.close(fd)


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _read_all(fd: int, path: str) -> tuple[bytes, str]:
    data = bytearray()
    # Until it ends: what a file's size says is not true of all of them.
    while piece := _read(fd, path):
        data += piece
        if len(data) > FILE_LIMIT_BYTES:
            raise OSError(errno.EFBIG, f"more than {FILE_LIMIT_BYTES >> 20} MiB", path)
    status = os.fstat(fd)
    return bytes(data), f"{status.st_dev}:{status.st_ino}"


def _read(fd: int, path: str) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except OSError as error:
        error.filename = path
        raise


# -- the process ---------------------------------------------------------------------------------


def _watch(parent: int, cpu_limit_s: float) -> None:
    """End this process past its limits, or with its parent, whatever its other thread does."""
    at_start = _peak_bytes()
    while True:
        time.sleep(_WATCH_S)
        if os.getppid() != parent:
            os._exit(Ending.ORPHAN)
        if time.process_time() > cpu_limit_s + _WATCH_GRACE_S:
            os._exit(Ending.TOO_LONG)
        if _peak_bytes() - at_start > PROCESS_LIMIT_BYTES:
            os._exit(Ending.TOO_LARGE)


def _peak_bytes() -> int:
    """The most memory held so far. On Linux a parent's counts as well: only differences do."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _ask_the_kernel_for_limits(cpu_limit_s: float) -> None:
    """macOS does not keep the one on memory; Windows has none."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most_s = int(cpu_limit_s) + _KERNEL_GRACE_S
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
        resource.setrlimit(resource.RLIMIT_DATA, (PROCESS_LIMIT_BYTES, PROCESS_LIMIT_BYTES))


def _converse(questions: BinaryIO, answers: BinaryIO, cpu_limit_s: float) -> None:
    def say(line: dict[str, object]) -> None:
        answers.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        answers.flush()

    def ask(line: dict[str, object]) -> Any:
        say(line)
        answer = json.loads(questions.readline())
        if "failure" in answer:
            raise Refused(answer["failure"])
        return answer["value"]

    question = json.loads(questions.readline())
    try:
        last = run(question["path"], question["fd"], question["wanted"], cpu_limit_s, ask)
    except MemoryError:
        os._exit(Ending.TOO_LARGE)
    # A missing library, a bug: the person whose configuration it is should read more than a code.
    except Exception as error:  # noqa: BLE001
        last = {"failed": f"{type(error).__name__}: {error}", "line": "", "files": []}
    say(last)


def main(parent: int, cpu_limit_s: float) -> None:
    """`parent`: the pid of who started this."""
    _ask_the_kernel_for_limits(cpu_limit_s)
    _thread.start_new_thread(_watch, (parent, cpu_limit_s))
    _converse(sys.stdin.buffer, sys.stdout.buffer, cpu_limit_s)
