"""EngineProcess: one child process in a group of its own, and its log."""

from __future__ import annotations

import enum
import logging
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from trio_gateway.engine.process import groups
from trio_gateway.engine.process.missing_library import missing_library
from trio_gateway.engine.process.plain_line import plain_line
from trio_gateway.engine.process.ports import listener_of_group
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.engine.process.telling_line import telling_line
from trio_gateway.lines import ENGINE_LOGGERS
from trio_gateway.tasks import open_flat_nursery

RING_LINES = 200
LINES_IN_ERROR, LONGEST_LINE = 15, 1000  # characters
LONGEST_WHY = 300  # characters of an error's sentence
LINES_SEARCHED = 40  # for the one that says why
LINE_MAX_BYTES = 4096  # longer ones are cut into pieces: an engine may never write a newline
PIPE_READ_BYTES = 65536
# A grandchild may hold the pipe open long after the engine itself is gone.
PUMP_LINGER_S = 1.0
# Between SIGKILL and the process being gone; only a process stuck in the kernel takes longer.
KILL_WAIT_S = 5.0


class EngineSpawnError(Exception):
    """The process could not be started; the message says why and what to do."""


class Ending(enum.Enum):
    STOPPED = "stopped"
    KILLED = "killed"
    SURVIVED = "could not be killed"
    LEFT = "was left where it is"  # what it runs on does not answer


class StopReport(msgspec.Struct, frozen=True):
    ending: Ending
    took_s: float


class Process(Protocol):
    """What an engine needs of its process. EngineProcess, NoProcess, ClusterProcess, or a fake in a
    test. `copies`: how many engines it is, which share the work; `copies_changed` waits for others.
    """

    exited: trio.Event

    @property
    def copies(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def status(self) -> str: ...
    def last_lines(self, count: int = ...) -> list[str]: ...
    def owns_port(self, port: int) -> bool | None: ...
    async def stop(self, timeout_s: float) -> StopReport: ...
    async def kill(self) -> StopReport: ...
    async def copies_changed(self) -> int: ...


class Launcher(Protocol):
    """Opens a process for as long as a block runs: `open_engine_process` without its reaper."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AbstractAsyncContextManager[Process]: ...


class EngineProcess:
    """A running child. Made by `open_engine_process`, which also guarantees its end."""

    copies = 1

    def __init__(
        self,
        process: trio.Process,
        log: logging.Logger,
        reaper: Reaper,
        keep: Callable[[str, Sequence[bytes]], None] | None = None,
    ) -> None:
        self._process, self._log, self._reaper, self._keep_too = process, log, reaper, keep
        self._label = log.name.rpartition(ENGINE_LOGGERS)[2]
        self._ring: deque[bytes] = deque(maxlen=RING_LINES)
        self.exited = trio.Event()

    def __repr__(self) -> str:
        return f"<EngineProcess pid={self.pid} status={self.status!r}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; -N if signal N ended it."""
        return self._process.returncode

    @property
    def status(self) -> str:
        if self.returncode is None:
            return "running"
        if self.returncode < 0:
            return f"was killed by signal {-self.returncode}"
        return f"exited with code {self.returncode}"

    def last_lines(self, count: int = RING_LINES) -> list[str]:
        """The newest lines of its output, the oldest first."""
        return [plain_line(line) for line in [*self._ring][-count:]]

    def owns_port(self, port: int) -> bool | None:
        """Whether this process (or a child of it) listens there; None: cannot be read."""
        return listener_of_group(self.pid, port)

    async def stop(self, timeout_s: float) -> StopReport:
        """End the whole group: SIGTERM, and SIGKILL `timeout_s` later."""
        begun = trio.current_time()
        groups.ask_group_to_end(self.pid)
        with trio.move_on_after(timeout_s):
            await self.exited.wait()
            return StopReport(Ending.STOPPED, trio.current_time() - begun)
        return await self.kill(begun)

    async def kill(self, begun: float | None = None) -> StopReport:
        """SIGKILL to the whole group."""
        begun = trio.current_time() if begun is None else begun
        groups.kill_group(self.pid)
        ending = Ending.SURVIVED
        with trio.move_on_after(KILL_WAIT_S):
            await self._wait_exit()
            ending = Ending.KILLED
        return StopReport(ending, trio.current_time() - begun)

    async def copies_changed(self) -> int:
        return await trio.sleep_forever()

    async def _wait_exit(self) -> None:
        await self._process.wait()
        if not self.exited.is_set():
            # Helpers that the engine left behind hold memory and ports of a dead engine.
            groups.kill_group(self.pid)
            self._reaper.unregister(self.pid)
            self.exited.set()

    async def _watch_exit(self, pump_scope: trio.CancelScope) -> None:
        await self._wait_exit()
        pump_scope.deadline = trio.current_time() + PUMP_LINGER_S

    async def _pump(self, scope: trio.CancelScope) -> None:
        """Read the output so that the engine never blocks on it."""
        assert self._process.stdout is not None
        rest = b""
        with scope:
            async with self._process.stdout as pipe:
                while chunk := await pipe.receive_some(PIPE_READ_BYTES):
                    *lines, rest = (rest + chunk).split(b"\n")
                    while len(rest) >= LINE_MAX_BYTES:
                        lines.append(rest[:LINE_MAX_BYTES])
                        rest = rest[LINE_MAX_BYTES:]
                    self._keep(lines)
        if rest:
            self._keep([rest])

    def _keep(self, lines: Sequence[bytes]) -> None:
        """What one read gave; it may be less than a line. An engine prints ten lines for a request,
        so they are made into text where somebody wants to read them."""
        lines = [line[:LINE_MAX_BYTES] for line in lines]
        self._ring.extend(lines)
        if self._log.isEnabledFor(logging.DEBUG):
            for line in lines:
                self._log.debug("%s | %s", self._label, plain_line(line))
        if self._keep_too is not None and lines:
            self._keep_too(self._label, lines)


def where(process: Process) -> str:
    """Its pid, or that it has none here, for the log."""
    return "elsewhere" if process.pid is None else f"pid {process.pid}"


def last_words(process: Process) -> str:
    """The line that says why it ended, as the sentence of an error ends with it."""
    lines = process.last_lines(LINES_SEARCHED)
    why = telling_line(lines)
    if (lack := missing_library("\n".join(lines))) is not None:
        why = lack
    return f": {why[:LONGEST_WHY]}" if why else ""


def output_of(process: Process) -> tuple[str, ...]:
    """Its last lines, as they go with an error."""
    return tuple(line[:LONGEST_LINE] for line in process.last_lines(LINES_IN_ERROR) if line)


def with_output(sentence: str, output: Sequence[str]) -> str:
    """For the log."""
    return "\n".join((f"{sentence}; its last lines:", *output)) if output else sentence


@asynccontextmanager
async def open_engine_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    workdir: Path,
    log: logging.Logger,
    reaper: Reaper,
    keep: Callable[[str, Sequence[bytes]], None] | None = None,
) -> AsyncIterator[EngineProcess]:
    """Run a child for as long as the block runs; on leaving it nothing of its group is left.

    Args:
        argv: the program and its arguments.
        env: its environment, all of it.
        log: receives each line of output at level DEBUG.
        keep: gets the lines as well, as they are, after the engine's MODEL:VARIANT.

    Raises:
        EngineSpawnError: it could not be started.
        Exception: what the block raises, as it is and in no group.
    """
    try:
        _check_runnable(argv[0], workdir)
        child = await groups.spawn_in_group(argv, env, workdir)
    except OSError as error:
        raise EngineSpawnError(f"{argv[0]} could not be started: {error.strerror}") from error
    process = EngineProcess(child, log, reaper, keep)
    reaper.register(child.pid, process._label)
    try:
        groups.open_gate(child)
        async with open_flat_nursery() as nursery:
            pump_scope = trio.CancelScope()
            nursery.start_soon(process._pump, pump_scope)
            nursery.start_soon(process._watch_exit, pump_scope)
            try:
                yield process
            finally:
                # Shielded so that a cancelled gateway still waits for its engines' ends.
                deadline = trio.current_time() + KILL_WAIT_S + 1
                with trio.CancelScope(shield=True, deadline=deadline):
                    if not process.exited.is_set():
                        report = await process.kill()
                        took_ms = round(report.took_s * 1000)
                        log.info("pid %d %s in %d ms", process.pid, report.ending.value, took_ms)
                if not process.exited.is_set():
                    log.error("pid %d survived SIGKILL", process.pid)
                    nursery.cancel_scope.cancel(reason="the process cannot be killed")
    finally:
        if child.stdin is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await child.stdin.aclose()  # closes a descriptor; shielded so that it happens


def _check_runnable(binary: str, workdir: Path) -> None:
    path = Path(shutil.which(binary) or binary)
    if not path.exists():
        what = "does not exist" if os.sep in binary else "is not on PATH"
        raise EngineSpawnError(f"{binary} {what}; check `binary` in the configuration")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise EngineSpawnError(f"{binary} is not executable; check `binary`, or chmod +x it")
    if not workdir.is_dir():
        raise EngineSpawnError(f"the folder {workdir} does not exist; check `workdir`")
