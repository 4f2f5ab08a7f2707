from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from trio_gateway.engine import platform


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
