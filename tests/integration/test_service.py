"""A real gateway that a service manager has started, and what that hears of it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.harness import (
    HYPERCORN,
    SERVE,
    chat_body,
    configuration,
    fake_model,
    running_gateway,
)

WAIT_S = 20.0


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        yield manager


def heard(manager: socket.socket) -> str:
    """What is next, but for the signs of life."""
    while (told := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    return told.partition("\n")[0]


UNDER_HYPERCORN = [
    (*HYPERCORN, "-k", "trio", "-w", workers, "-b", "127.0.0.1:0", "trio_gateway.app:app")
    for workers in ("0", "1")
]


@pytest.mark.parametrize(
    ("command", "ready"),
    [
        (SERVE, r"Base URL for clients: (\S+)/v1"),
        *((command, r"Running on (\S+) \(CTRL") for command in UNDER_HYPERCORN),
    ],
    ids=["serve", "hypercorn", "hypercorn with a worker process"],
)
def test_it_hears_of_each_change_and_engines_do_not_know_of_it(
    command: tuple[str, ...], ready: str, manager: socket.socket, tmp_path: Path
) -> None:
    config = configuration(fake_model("m"))
    with running_gateway(tmp_path, config, command=command, ready=ready) as gateway:
        assert heard(manager) == "READY=1"
        answer = httpx.post(f"{gateway.base_url}/v1/chat/completions", json=chat_body("m"))
        assert answer.status_code == 200, answer.text
        for engine in gateway.engines():
            assert "NOTIFY_SOCKET" not in engine.environ()
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert httpx.post(f"{gateway.base_url}/gateway/reload").status_code == 200
        assert [heard(manager), heard(manager)] == ["RELOADING=1", "READY=1"]
        gateway.send_signal(signal.SIGTERM)
        assert heard(manager) == "STOPPING=1"


def test_a_loop_that_hangs_is_not_heard_of_any_more(manager: socket.socket, tmp_path: Path) -> None:
    """A stopped process hangs as a loop does that comes back from nowhere."""
    with running_gateway(tmp_path, configuration(fake_model("m"))) as gateway:
        assert heard(manager) == "READY=1"
        psutil.Process(gateway.process.pid).suspend()
        _read_all(manager)
        manager.settimeout(1.0)
        with pytest.raises(TimeoutError):
            manager.recv(4096)
        psutil.Process(gateway.process.pid).resume()
        manager.settimeout(WAIT_S)
        assert manager.recv(4096) == b"WATCHDOG=1"


def _read_all(manager: socket.socket) -> None:
    """What it had said before."""
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            manager.recv(4096)
