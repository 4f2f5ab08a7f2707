"""Runs: the records of gateways' runs, and what those that did not end in order have left.

Each run's reaper keeps one file, `RUN.json`, locked while it lives, and removes it after a run that
ended in order (`reaper_program.py`). So a file that nobody has locked is of a gateway that was
killed; it says what ran then, and, if the reaper outlived the gateway, what became of that. All
gateways of a user share the folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import platformdirs

from trio_gateway.engine.process.groups import HAS_GROUPS, ask_group_to_end, kill_group
from trio_gateway.engine.process.reaper_program import born_of

log = logging.getLogger(__name__)

VERSION = 1
SIZE_MAX = 64 * 1024  # bytes
READ_MAX = 64  # files, at one start
REAPER_S = 2.0  # for the reaper of a gateway that was killed a moment ago
ENGINES_S = 2.0  # for engines that are found, before they are killed
STRANGE_S = 30 * 86400.0  # after so long the record of another machine is nobody's
_STEP_S = 0.02


class RunEngine(msgspec.Struct, frozen=True):
    """`group`: of its processes. `born`: as `born_of` gives it."""

    group: int
    name: str
    born: int | None = None


class Run(msgspec.Struct, frozen=True):
    """What a record says. `machine`: this start of this machine. `ended_at` None: nobody saw its
    end, and `engines` are those that ran last. Otherwise `ended` are the names of the engines that
    its reaper ended."""

    version: int
    pid: int
    born: int | None
    began_at: float  # Unix time
    source: str
    host: str
    machine: str
    engines: tuple[RunEngine, ...] = ()
    ended_at: float | None = None
    ended: tuple[str, ...] = ()


class LeftRun(msgspec.Struct, frozen=True):
    """A run that did not end in order. `found`: its engines that still ran, and have been ended
    now. `is_of_before`: the machine was started anew since."""

    run: Run
    found: tuple[str, ...]
    is_of_before: bool


class Runs:
    """Its methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, source: Path) -> tuple[str, str] | None:
        """For the reaper: where this run's record is, and what it begins with; None: there can be
        none, and the next run will know nothing of this one."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.info("no record of this run is kept: %s: %s", self._folder, error.strerror)
            return None
        run = Run(
            VERSION, os.getpid(), born_of(os.getpid()), time.time(), os.path.abspath(source),
            _host(), _machine(),
        )  # fmt: skip
        path = self._folder / f"{os.getpid()}-{uuid4().hex[:8]}.json"
        return str(path), msgspec.json.encode(run).decode()

    def take_left(self) -> list[LeftRun]:
        """What runs that did not end in order have left; their engines that still run are ended,
        and their records removed. The last one last."""
        if not HAS_GROUPS:
            return []
        found: list[LeftRun] = []
        try:
            paths = sorted(self._folder.glob("*-*.json"))[:READ_MAX]
        except OSError:
            return []
        for path in paths:
            with contextlib.suppress(OSError), _locked(path) as run:
                if run is not None and (left := _end(run)) is not None:
                    path.unlink()
                    found.append(left)
        return sorted(found, key=lambda left: left.run.began_at)


def own_runs() -> Runs | None:
    """In the user's own folder for what programs have learned; None: there is no such folder."""
    folder = platformdirs.user_state_path("trio-gateway", appauthor=False) / "runs"
    return Runs(folder) if folder.is_absolute() else None  # no home: "~" stands for itself


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Run | None]:
    """What it says, with its lock; None: a reaper has that, or it says nothing.

    Raises:
        OSError
    """
    import fcntl

    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        until = time.monotonic() + REAPER_S
        while True:
            run = _read(opened)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # That of a gateway that runs; or its reaper ends what that has left.
                if run is None or _lives(run.pid, run.born) or time.monotonic() > until:
                    yield None
                    return
                time.sleep(_STEP_S)
        run = _read(opened)  # as the reaper has left it
        is_there = os.fstat(opened).st_nlink > 0  # nobody else has taken it
        if run is None and is_there and _age_s(opened) > STRANGE_S:
            path.unlink()
        yield run if is_there else None
    finally:
        os.close(opened)


def _read(opened: int) -> Run | None:
    line = os.pread(opened, SIZE_MAX, 0).partition(b"\n")[0]
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        run = msgspec.json.decode(line, type=Run)
        return run if run.version == VERSION else None
    return None


def _end(run: Run) -> LeftRun | None:
    """End what still runs of it; None: it is not over, or none of this machine's."""
    is_of_before = run.machine != _machine()
    if is_of_before:
        if run.host != _host() and time.time() - run.began_at < STRANGE_S:
            return None  # homes may be on a network
        return LeftRun(run, (), is_of_before=True)
    if _lives(run.pid, run.born):
        return None  # its reaper is being started again
    alive = [e for e in run.engines if e.born is not None and born_of(e.group) == e.born]
    for engine in alive:
        ask_group_to_end(engine.group)
    left, until = list(alive), time.monotonic() + ENGINES_S
    while left and time.monotonic() < until:
        time.sleep(_STEP_S)
        left = [engine for engine in left if born_of(engine.group) == engine.born]
    for engine in left:
        kill_group(engine.group)
    return LeftRun(run, tuple(engine.name for engine in alive), is_of_before=False)


def _lives(pid: int, born: int | None) -> bool:
    if born is not None:
        return born_of(pid) == born
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return pid != os.getpid()


def _age_s(opened: int) -> float:
    return time.time() - os.fstat(opened).st_mtime


def _host() -> str:
    return os.uname().nodename


def _machine() -> str:
    """This start of the machine, and this container: in another one, numbers of processes mean
    others."""
    if not sys.platform.startswith("linux"):
        return ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
