from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from trio_gateway.engine.process import ports
from trio_gateway.engine.process.groups import kill_group


async def test_a_free_port_is_free_and_not_one_that_is_taken() -> None:
    first = ports.pick_free_port(set())
    assert not await ports.address_in_use("127.0.0.1", first)
    assert ports.pick_free_port({first}) != first
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says of a foreign address
        ports.pick_free_port(set(), "192.0.2.1")


async def test_an_address_is_in_use_while_somebody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await ports.address_in_use("127.0.0.1", port)
        assert await ports.address_in_use("localhost", port)
    assert not await ports.address_in_use("127.0.0.1", port)


async def test_an_address_of_another_machine_is_not_ours_to_look_at() -> None:
    assert not await ports.address_in_use("192.0.2.1", 80)


def test_the_holder_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        described = ports.describe_port_holder(server.getsockname()[1])
    assert described.startswith(f"pid {os.getpid()} (")


def test_a_holder_that_cannot_be_read_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert "cannot be read" in ports.describe_port_holder(1)


@pytest.mark.processes
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
            assert ports.listener_of_group(process.pid, port) is True
            assert ports.listener_of_group(process.pid, 1) is False
            assert kill_group(process.pid)
    assert ports.listener_of_group(process.pid, port) is None

    def denied(self: object, kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "net_connections", denied)
    assert ports.listener_of_group(os.getpid(), 1) is None
