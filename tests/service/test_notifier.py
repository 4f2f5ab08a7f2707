"""What a service manager is told, read at its end of a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from trio_gateway.service.notifier import Notifier
from trio_gateway.tasks import beside

WAIT_S = 10.0
PID = 4321


class Manager:
    """Its end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    async def heard(self) -> list[str]:
        with trio.fail_after(WAIT_S):
            await trio.lowlevel.wait_readable(self._socket)
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a file", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    manager = Manager(path if request.param == "a file" else f"@{path}")
    yield manager
    manager.close()


async def test_it_hears_of_the_start_of_a_reload_and_of_the_stop_in_this_order(
    manager: Manager,
) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "HOME": "/"}
    notifier, closing = Notifier.of(environ, PID), trio.Event()
    assert environ == {"HOME": "/"}  # engines do not speak for the gateway
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run, closing, lambda: 22.5)
        with notifier.reloading():
            pass  # nobody waits for a reload yet
        notifier.ready("ready at http://localhost")
        assert await manager.heard() == ["READY=1", "STATUS=ready at http://localhost"]
        with notifier.reloading():
            begun = await manager.heard()
        assert begun[0] == "RELOADING=1"
        assert begun[1].removeprefix("MONOTONIC_USEC=").isdecimal()
        assert (await manager.heard())[0] == "READY=1"
        with suppress(ValueError), notifier.reloading():
            assert (await manager.heard())[0] == "RELOADING=1"
            raise ValueError("a mistake in the configuration")
        assert "not taken over" in (await manager.heard())[1]
        with notifier.reloading():
            assert (await manager.heard())[0] == "RELOADING=1"
            closing.set()
            stopping = await manager.heard()
            assert stopping[:2] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=22500000"]
        with notifier.reloading():
            pass  # nor now: it would be ready again
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="the gateway has ended")
    with pytest.raises(BlockingIOError):
        manager._socket.recv(1)


async def test_what_was_said_last_is_sent_however_soon_it_ends(manager: Manager) -> None:
    notifier, closing = Notifier(manager.address), trio.Event()
    async with beside(lambda: notifier.run(closing, lambda: 1.0)):
        notifier.ready("ready")
        closing.set()
    assert (await manager.heard())[0] == "READY=1"
    assert (await manager.heard())[0] == "STOPPING=1"


async def test_a_watchdog_hears_from_a_loop_that_runs_until_its_very_end(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(PID)}
    notifier, closing = Notifier.of(environ, PID), trio.Event()
    notifier._is_ready = True
    async with beside(lambda: notifier.run(closing, lambda: 1.0)):
        assert await manager.heard() == ["WATCHDOG=1"]
        closing.set()
        while (told := await manager.heard())[0] == "WATCHDOG=1":
            pass
        assert told[0] == "STOPPING=1"
        assert await manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(PID + 1)},
    ],
    ids=str,
)
async def test_without_a_watchdog_of_its_own_it_says_nothing_by_itself(
    watchdog: dict[str, str], tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog}
    assert Notifier.of(environ, PID)._watchdog_s is None
    assert not environ


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative/path"], ids=repr)
async def test_where_nobody_asked_nothing_is_sent(address: str | None) -> None:
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    notifier = Notifier.of(environ, os.getpid())
    notifier.ready("ready")
    with trio.fail_after(WAIT_S):
        await notifier.run(trio.Event(), lambda: 1.0)  # has nothing to do


async def test_a_manager_that_is_gone_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    async with beside(lambda: notifier.run(trio.Event(), lambda: 1.0)):
        for _ in range(2):
            notifier.ready("ready")
            await trio.testing.wait_all_tasks_blocked()
    told = "the service manager cannot be told: No such file or directory"
    assert caplog.messages == [told]  # once
