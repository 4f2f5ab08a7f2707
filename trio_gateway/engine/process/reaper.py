"""Reaper: keeps the process running that stops what a killed gateway leaves behind.

Its program is `reaper_program.py`. On Windows there are no process groups to kill and no reaper: a
gateway that is killed hard leaves its engines running.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import trio

from trio_gateway.engine.process.environment import inherited
from trio_gateway.engine.process.groups import HAS_GROUPS, tell

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("reaper_program.py")
END_S = 2.0
RESTART_PAUSE_S = 1.0


class Reaper:
    """The gateway's side of the reaper. `run` owns the process; the rest are quick writes.
    `secrets`: variables that it does not inherit."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._secrets = secrets
        self._groups: set[int] = set()
        self._process: trio.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def register(self, group: int) -> None:
        self._groups.add(group)
        self._write(b"+%d\n" % group)

    def unregister(self, group: int) -> None:
        self._groups.discard(group)
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
        ended: int | None = None
        while True:
            started_at = trio.current_time()
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", str(_PROGRAM)],
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
                for group in self._groups:
                    self._write(b"+%d\n" % group)
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


async def _end(process: trio.Process) -> None:
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
