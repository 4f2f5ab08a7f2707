"""A short program: run to its end, with its input and its output in memory."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection, Sequence

import trio

from trio_gateway.engine.process.groups import HAS_GROUPS, kill_group
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.environment import inherited

TOOL_END_S = 1.0


async def run_tool(
    argv: Sequence[str], stdin: bytes, reaper: Reaper | None, secrets: Collection[str] = ()
) -> tuple[int | None, bytes]:
    """Run a short program; its exit code and what it printed. Killed with its group on cancel.

    Args:
        secrets: variables that it does not inherit.

    Raises:
        OSError: it could not be started.
    """
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=inherited(secrets),
        start_new_session=HAS_GROUPS,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if reaper is not None:
        reaper.register(process.pid)
    try:
        async with process.stdin, process.stdout, trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process.stdin, stdin)
            printed = b"".join([bytes(piece) async for piece in process.stdout])
        await process.wait()
    finally:
        kill_group(process.pid)
        # Shielded so that a cancelled caller leaves no zombie; a killed process is gone at once.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + TOOL_END_S):
            await process.wait()
        if reaper is not None:
            reaper.unregister(process.pid)
    return process.returncode, printed


async def _feed(stream: trio.abc.SendStream, data: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # it need not read all of it
        await stream.send_all(data)
    await stream.aclose()
