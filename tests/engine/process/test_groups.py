from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_gateway.engine.process import groups


@pytest.mark.processes
def test_signals_to_a_group_that_is_gone_say_so() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        process.wait()
    assert not groups.ask_group_to_end(process.pid)
    assert not groups.kill_group(process.pid)


@pytest.mark.processes
async def test_a_child_runs_only_once_its_gate_is_open(tmp_path: Path) -> None:
    """So that a gateway killed before it registered the child leaves nothing."""
    ran = tmp_path / "ran"
    child = await groups.spawn_in_group(["touch", str(ran)], os.environ, tmp_path)
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdin.aclose()
    assert await child.wait() == 125
    await child.stdout.aclose()
    assert not await trio.Path(ran).exists()

    child = await groups.spawn_in_group(["touch", str(ran)], os.environ, tmp_path)
    assert child.stdin is not None
    assert child.stdout is not None
    groups.open_gate(child)
    assert await child.wait() == 0
    await child.stdout.aclose()
    await child.stdin.aclose()
    assert await trio.Path(ran).exists()
