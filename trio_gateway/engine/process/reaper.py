"""Reaper: keeps the process running that stops what a killed gateway leaves behind.

Its program is `reaper_program.py`. On Windows there are no process groups to kill and no reaper: a
gateway that is killed hard leaves its engines running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import trio

from trio_gateway.engine.process.groups import HAS_GROUPS, tell
from trio_gateway.engine.process.runs import LeftRun, Runs
from trio_gateway.environment import inherited

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("reaper_program.py")
END_S = 2.0
RESTART_PAUSE_S = 1.0
LONGEST_NAME = 200  # characters: a line has to fit into what a pipe takes at once


class Reaper:
    """The gateway's side of the reaper. `run` owns the process; the rest are quick writes.

    Args:
        secrets: variables that it does not inherit.
        runs: where it keeps the record of this run; None: nowhere.
        source: the configuration of this run.

    `left`: runs before this one that did not end in order, once it runs.
    """

    def __init__(
        self, secrets: Collection[str] = (), runs: Runs | None = None, source: Path = Path()
    ) -> None:
        self._secrets, self._runs, self._source = secrets, runs, source
        self.left: list[LeftRun] = []
        self._record: tuple[str, str] | None = None
        self._groups: dict[int, str] = {}
        self._process: trio.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def register(self, group: int, name: str = "") -> None:
        """`name`: of an engine, for whoever is told that it had to be ended."""
        self._groups[group] = name = " ".join(name.split())[:LONGEST_NAME]
        self._write(_registration(group, name))

    def unregister(self, group: int) -> None:
        self._groups.pop(group, None)
        self._write(b"-%d\n" % group)

    def _write(self, line: bytes) -> None:
        # One that just died is started again with all groups, see `run`.
        if self._process is not None:
            tell(self._process, line)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a reaper running until cancelled."""
        if not HAS_GROUPS:
            task_status.started()
            await trio.sleep_forever()
        if (runs := self._runs) is not None:
            # First, as what is left may hold memory and ports.
            in_thread = trio.to_thread.run_sync
            self.left = await in_thread(runs.take_left, abandon_on_cancel=True)
            self._record = await in_thread(runs.begin, self._source, abandon_on_cancel=True)
        try:
            await self._keep_running(task_status)
        finally:
            if self._record is not None:  # a reaper that is gone has not removed it
                with contextlib.suppress(OSError):
                    os.unlink(self._record[0])

    async def _keep_running(self, task_status: trio.TaskStatus[None]) -> None:
        ended: int | None = None
        while True:
            started_at = trio.current_time()
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", str(_PROGRAM), *(self._record or ())],
                    stdin=subprocess.PIPE,
                    env=inherited(self._secrets),
                    start_new_session=True,  # Ctrl-C in the terminal is not for it
                )
            except OSError as error:
                if ended is None:
                    raise  # without a first one the gateway must not start engines
                log.error("the reaper cannot be started again: %s; still trying", error.strerror)
                await trio.sleep(RESTART_PAUSE_S)
                continue
            try:
                self._process = process
                for group, name in self._groups.items():
                    self._write(_registration(group, name))
                if ended is None:
                    task_status.started()
                else:
                    log.error(
                        "the reaper (pid %d) has ended; started again as pid %d", ended, process.pid
                    )
                await process.wait()
                ended = process.pid
            finally:
                self._process = None
                await _end(process)
            # One that ends as soon as it starts must not make this a busy loop.
            await trio.sleep_until(started_at + RESTART_PAUSE_S)


def _registration(group: int, name: str) -> bytes:
    return f"+{group} {name}".rstrip().encode(errors="replace") + b"\n"


async def _end(process: trio.Process) -> None:
    tell(process, b".\n")
    # Shielded because it runs while being cancelled: the reaper ends by itself at the pipe's
    # end, after killing what is still registered.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
        if process.stdin is not None:
            await process.stdin.aclose()
        await process.wait()
    if process.returncode is None:
        process.kill()
        # Shielded for the same reason; a killed process of ours is gone in milliseconds.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
            await process.wait()
