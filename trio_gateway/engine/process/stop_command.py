"""The `stop_command` of an engine: for one whose process is only the client of the real one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import trio

from trio_gateway.engine.process.process import EngineSpawnError, Process

LINES_IN_WARNING = 5
# The rest of `engine_stop_timeout` is for the SIGTERM that comes after it.
LIMIT_SHARE = 0.8


def stop_command(command: Sequence[str], process: Process, port: int) -> list[str]:
    """The command as it is to be run; empty: not at all. `${PID}` of a process that is gone may be
    somebody else's by now."""
    pid = None if process.exited.is_set() else process.pid
    if pid is None and any("${PID}" in word for word in command):
        return []
    return [word.replace("${PID}", str(pid)).replace("${PORT}", str(port)) for word in command]


async def run_stop_command(
    launched: AbstractAsyncContextManager[Process],
    program: str,
    limit_s: float,
    log: logging.Logger,
) -> None:
    """Wait for its end, at most for `limit_s`; then it is killed with its group. Never raises:
    what happens to it is logged, and the engine's end goes on."""
    try:
        async with launched as process:
            with trio.move_on_after(limit_s) as limit:
                await process.exited.wait()
            if not limit.cancelled_caught and process.returncode == 0:
                log.info("stop_command %s is done", program)
                return
            late = f"did not end within {limit_s:.1f} s"
            failure = late if limit.cancelled_caught else process.status
            lines = "".join(f"\n{line}" for line in process.last_lines(LINES_IN_WARNING))
            log.warning("stop_command %s %s%s", program, failure, lines)
    except EngineSpawnError as error:
        log.warning("stop_command: %s", error)
