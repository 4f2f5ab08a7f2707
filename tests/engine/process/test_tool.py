from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import trio

from tests.support.harness import wait_until_gone
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.engine.process.tool import run_tool

pytestmark = pytest.mark.processes


class RecordingReaper(Reaper):
    """Remembers what was registered, and starts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def _write(self, line: bytes) -> None:
        self.lines.append(line)


async def test_a_tool_s_output_and_exit_code_come_back_and_the_reaper_knew_it() -> None:
    reaper = RecordingReaper()
    code, printed = await run_tool(["sh", "-c", "cat; exit 3"], b"x" * 200_000, reaper)
    assert (code, printed) == (3, b"x" * 200_000)
    registered, taken_back = reaper.lines
    assert registered.replace(b"+", b"-") == taken_back


async def test_a_tool_need_not_read_what_it_is_given() -> None:
    code, printed = await run_tool(["echo", "done"], b"x" * 1_000_000, None)
    assert (code, printed) == (0, b"done\n")


async def test_a_cancelled_tool_is_killed_with_its_helpers_whatever_it_ignores(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_tool, ["sh", "-c", script], b"", None)
            while not await trio.Path(pids).exists():  # noqa: ASYNC110 - another process's doing
                await trio.sleep(0.005)
            scope.cancel(reason="the test says so")
    left = [pid for pid in map(int, pids.read_text().split()) if psutil.pid_exists(pid)]
    assert not wait_until_gone([psutil.Process(pid) for pid in left], within_s=1)
