from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.support.harness import wait_until_gone
from trio_gateway.engine.process import platform


async def test_a_free_port_is_free_and_not_one_that_is_taken() -> None:
    first = platform.pick_free_port(set())
    assert not await platform.address_in_use("127.0.0.1", first)
    assert platform.pick_free_port({first}) != first
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says of a foreign address
        platform.pick_free_port(set(), "192.0.2.1")


async def test_an_address_is_in_use_while_somebody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await platform.address_in_use("127.0.0.1", port)
        assert await platform.address_in_use("localhost", port)
    assert not await platform.address_in_use("127.0.0.1", port)


async def test_an_address_of_another_machine_is_not_ours_to_look_at() -> None:
    assert not await platform.address_in_use("192.0.2.1", 80)


def test_the_holder_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        described = platform.describe_port_holder(server.getsockname()[1])
    assert described.startswith(f"pid {os.getpid()} (")


def test_a_holder_that_cannot_be_read_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert "cannot be read" in platform.describe_port_holder(1)


def test_who_listens_is_looked_for_in_the_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import socket, subprocess, sys, time\n"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"
    for command in (program, parent):
        with subprocess.Popen(
            [sys.executable, "-c", command], stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert platform.listener_of_group(process.pid, port) is True
            assert platform.listener_of_group(process.pid, 1) is False
            assert platform.kill_group(process.pid)
    assert platform.listener_of_group(process.pid, port) is None

    def denied(self: object, kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "net_connections", denied)
    assert platform.listener_of_group(os.getpid(), 1) is None


def test_signals_to_a_group_that_is_gone_say_so() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        process.wait()
    assert not platform.ask_group_to_end(process.pid)
    assert not platform.kill_group(process.pid)


def test_only_one_worker_of_a_parent_is_let_in() -> None:
    with platform.single_worker(os.getpid()) as first:
        with platform.single_worker(os.getpid()) as second:
            assert (first, second) == (True, False)
        with platform.single_worker(os.getpid() + 1) as other:
            assert other
    with platform.single_worker(os.getpid()) as again:
        assert again


async def test_a_child_runs_only_once_its_gate_is_open(tmp_path: Path) -> None:
    """So that a gateway killed before it registered the child leaves nothing."""
    ran = tmp_path / "ran"
    child = await platform.spawn_in_group(["touch", str(ran)], os.environ, tmp_path)
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdin.aclose()
    assert await child.wait() == 125
    await child.stdout.aclose()
    assert not await trio.Path(ran).exists()

    child = await platform.spawn_in_group(["touch", str(ran)], os.environ, tmp_path)
    assert child.stdin is not None
    assert child.stdout is not None
    platform.open_gate(child)
    assert await child.wait() == 0
    await child.stdout.aclose()
    await child.stdin.aclose()
    assert await trio.Path(ran).exists()


async def test_the_reaper_ends_what_is_registered_when_it_is_cancelled(tmp_path: Path) -> None:
    reaper = platform.Reaper()
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        children = [
            await platform.spawn_in_group(["sleep", "60"], os.environ, tmp_path) for _ in range(2)
        ]
        for child in children:
            platform.open_gate(child)
            reaper.register(child.pid)
        reaper.unregister(children[1].pid)
        nursery.cancel_scope.cancel(reason="the test is over")
    registered, taken_back = children
    assert await registered.wait() == -signal.SIGTERM
    assert taken_back.poll() is None
    platform.kill_group(taken_back.pid)
    await taken_back.wait()
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        await child.stdin.aclose()
        await child.stdout.aclose()
    assert reaper.pid is None


class RecordingReaper(platform.Reaper):
    """Remembers what was registered, and starts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def _write(self, line: bytes) -> None:
        self.lines.append(line)


async def test_a_tool_s_output_and_exit_code_come_back_and_the_reaper_knew_it() -> None:
    reaper = RecordingReaper()
    code, printed = await platform.run_tool(["sh", "-c", "cat; exit 3"], b"x" * 200_000, reaper)
    assert (code, printed) == (3, b"x" * 200_000)
    registered, taken_back = reaper.lines
    assert registered.replace(b"+", b"-") == taken_back


async def test_a_tool_need_not_read_what_it_is_given() -> None:
    code, printed = await platform.run_tool(["echo", "done"], b"x" * 1_000_000, None)
    assert (code, printed) == (0, b"done\n")


async def test_a_cancelled_tool_is_killed_with_its_helpers_whatever_it_ignores(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.run_tool, ["sh", "-c", script], b"", None)
            while not await trio.Path(pids).exists():  # noqa: ASYNC110 - another process's doing
                await trio.sleep(0.005)
            scope.cancel(reason="the test says so")
    left = [pid for pid in map(int, pids.read_text().split()) if psutil.pid_exists(pid)]
    assert not wait_until_gone([psutil.Process(pid) for pid in left], within_s=1)


async def test_a_reaper_that_cannot_be_started_again_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(platform, "_REAPER_RESTART_PAUSE_S", 0.01)
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
    reaper = platform.Reaper()
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
            await nursery.start(platform.Reaper().run)


async def test_a_reaper_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_REAPER_END_S", 0.2)
    reaper = platform.Reaper()
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        assert reaper.pid is not None
        pid = reaper.pid
        os.kill(pid, signal.SIGSTOP)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not psutil.pid_exists(pid)
