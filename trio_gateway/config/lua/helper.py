"""Runs `program.py` in a process of its own, and answers what it asks for.

Plain blocking calls, bounded by END_S: beside an event loop, in a thread.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trio_gateway.config.lua import program
from trio_gateway.config.lua.program import PROCESS_LIMIT_BYTES, Ending, Refused
from trio_gateway.finding import gguf_folder

CPU_LIMIT_S = 3.0  # all instructions that it may use take 0.4 s
END_S = 30.0  # of any time: for a disk that does not answer, which takes no time of a processor
_EXIT_S = 5.0
_LONGEST_LINE = 128 << 20  # bytes
HAS_FDS = os.name == "posix"  # a child can inherit an open file
# What the helper's Python needs to find its libraries, and to read paths as this one does.
_PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH", "SYSTEMROOT", "USERPROFILE",
)  # fmt: skip
# Its folders come last, so that they hide nothing of the standard library.
_BEGIN = """
import sys
sys.path += sys.argv[1:4]
import program
program.main(int(sys.argv[4]), float(sys.argv[5]))
"""

Ask = Callable[[Mapping[str, Any]], object]
_QUESTIONS = frozenset({"getenv", "preset", "discover"})


class HelperFailed(Exception):
    """The process ended before the program did; the message says why."""


def run_program(
    path: str, fd: int | None, wanted: Sequence[str] | None, ask: Ask
) -> Mapping[str, Any]:
    """What `program.run` gives, from a process of its own. `ask` may raise Refused.

    Raises:
        HelperFailed
    """
    with _started(fd) as helper:
        helper.tell({"path": path, "fd": fd, "wanted": wanted})
        while not _QUESTIONS.isdisjoint(said := helper.hear()):
            try:
                helper.tell({"value": ask(said)})
            except Refused as refusal:
                helper.tell({"failure": str(refusal)})
    return said


class _Helper:
    """A running process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._is_late = False

    def stop_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def tell(self, line: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why it is gone, `hear` finds out
            self._process.stdin.write(msgspec.json.encode(line) + b"\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_LONGEST_LINE)
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=dict[str, Any])
        raise HelperFailed(self._why_it_ended())

    def _why_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        code = self._process.returncode
        if self._is_late:
            return f"it did not end within {END_S:g} s"
        if code in (Ending.TOO_LONG, -getattr(signal, "SIGXCPU", 0)):
            return f"more than {CPU_LIMIT_S:g} s of a processor's time (an endless loop?)"
        if code == Ending.TOO_LARGE:
            return f"more than {PROCESS_LIMIT_BYTES >> 20} MiB of memory used"
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return f"the process that runs it ended {how}"


@contextlib.contextmanager
def _started(fd: int | None) -> Iterator[_Helper]:
    lupa = importlib.util.find_spec("lupa")
    if lupa is None or lupa.origin is None:
        raise HelperFailed("the package lupa is not installed")
    modules = os.path.dirname(program.__file__), os.path.dirname(gguf_folder.__file__)
    folders = *modules, os.path.dirname(os.path.dirname(lupa.origin))
    # -I and -S: nothing of the folder, the variables or the packages has a say.
    python = [sys.executable, "-I", "-S", "-c", _BEGIN]
    try:
        process = subprocess.Popen(
            [*python, *folders, str(os.getpid()), str(CPU_LIMIT_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            pass_fds=() if fd is None else (fd,),
            start_new_session=HAS_FDS,  # Ctrl-C is for this process, which then ends that one
        )
    except OSError as error:
        raise HelperFailed(f"cannot start {sys.executable}: {error.strerror}") from None
    helper = _Helper(process)
    timer = threading.Timer(END_S, helper.stop_late)
    timer.daemon = True  # it keeps nothing from ending
    timer.start()
    try:
        yield helper
    finally:
        timer.cancel()
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_S)  # a killed process is gone at once
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
