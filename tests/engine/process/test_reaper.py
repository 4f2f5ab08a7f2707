from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from trio_gateway.engine.process import groups
from trio_gateway.engine.process import reaper as reaper_module
from trio_gateway.engine.process.reaper import Reaper

pytestmark = pytest.mark.processes


async def test_the_reaper_ends_what_is_registered_when_it_is_cancelled(tmp_path: Path) -> None:
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        children = [
            await groups.spawn_in_group(["sleep", "60"], os.environ, tmp_path) for _ in range(2)
        ]
        for child in children:
            groups.open_gate(child)
            reaper.register(child.pid)
        reaper.unregister(children[1].pid)
        nursery.cancel_scope.cancel(reason="the test is over")
    registered, taken_back = children
    assert await registered.wait() == -signal.SIGTERM
    assert taken_back.poll() is None
    groups.kill_group(taken_back.pid)
    await taken_back.wait()
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        await child.stdin.aclose()
        await child.stdout.aclose()
    assert reaper.pid is None


async def test_a_reaper_that_cannot_be_started_again_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reaper_module, "RESTART_PAUSE_S", 0.01)
    real, failures = trio.lowlevel.open_process, 2
    again = trio.Event()

    async def sometimes(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures and reaper_pids:
            failures -= 1
            raise OSError(24, "Too many open files")
        process = await real(*args, **kwargs)
        reaper_pids.append(process.pid)
        if len(reaper_pids) == 2:
            again.set()
        return process

    reaper_pids: list[int] = []
    monkeypatch.setattr(trio.lowlevel, "open_process", sometimes)
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        os.kill(reaper_pids[0], signal.SIGKILL)
        with trio.fail_after(10):
            await again.wait()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert caplog.text.count("cannot be started again: Too many open files") == 2


async def test_without_a_first_reaper_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(trio.lowlevel, "open_process", never)
    with pytest.RaisesGroup(OSError):
        async with trio.open_nursery() as nursery:
            await nursery.start(Reaper().run)


async def test_a_reaper_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper_module, "END_S", 0.2)
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        assert reaper.pid is not None
        pid = reaper.pid
        os.kill(pid, signal.SIGSTOP)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not psutil.pid_exists(pid)
