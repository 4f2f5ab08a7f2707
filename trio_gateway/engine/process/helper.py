"""A helper of the gateway's own: a process that answers questions over its stdin and stdout."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

import trio

from trio_gateway.engine.process.groups import HAS_GROUPS, kill_group
from trio_gateway.engine.process.reaper import Reaper

_END_S = 1.0


async def start_helper(
    argv: Sequence[str], env: Mapping[str, str], reaper: Reaper | None
) -> trio.Process:
    """`end_helper` must follow. Raises OSError: it could not be started."""
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # prompts are secrets, and a crash may quote one
        env=env,
        start_new_session=HAS_GROUPS,
    )
    if reaper is not None:
        reaper.register(process.pid)
    return process


async def end_helper(process: trio.Process, reaper: Reaper | None) -> None:
    """Kill it, with its group."""
    kill_group(process.pid)
    # Shielded so that a cancelled caller leaves no zombie; a killed process is gone at once.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
    if reaper is not None:
        reaper.unregister(process.pid)
