"""EndWatch on real sockets, and what a connection does where there is none."""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.support.real_sockets import served
from tests.support.socket_network import SocketNetwork
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.http.end_watch import EndWatch, end_watch
from trio_gateway.server.http.types import Message, Receive, Scope, Send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
LATE_S = 10  # before a test fails
_RESET = struct.pack("ii", 1, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])
@pytest.mark.parametrize(
    "leave",
    [socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR), reset],
    ids=["closes", "closes its side", "resets"],
)
@pytest.mark.parametrize("is_early", [True, False])
async def test_it_tells_of_the_end_and_of_nothing_else(
    pair: Callable[[], tuple[socket.socket, socket.socket]],
    leave: Callable[[socket.socket], None],
    is_early: bool,
) -> None:
    client, server = pair()
    with client, server:
        if is_early:
            leave(client)
        watch = EndWatch(server)
        ended = trio.Event()

        async def wait() -> None:
            await watch.wait()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            if not is_early:
                for _ in range(3):
                    client.send(b"x" * 1000)
                    # Whatever that woke has had its turn once a thread has come back.
                    await trio.to_thread.run_sync(lambda: None)
                    await trio.testing.wait_all_tasks_blocked()
                    assert not ended.is_set()
                leave(client)
            with trio.fail_after(LATE_S):
                await ended.wait()
        watch.close()


async def test_closing_it_ends_a_wait() -> None:
    client, server = tcp_pair()
    with client, server, trio.fail_after(LATE_S):
        watch = EndWatch(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.wait)
            await trio.testing.wait_all_tasks_blocked()
            watch.close()
        await watch.wait()  # nor does one begin


def test_without_a_file_for_it_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "epoll", no_file_left)
    client, server = tcp_pair()
    with client, server:
        assert end_watch(server) is None


def no_file_left(*_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("has_file", [True, False])
async def test_a_client_that_leaves_is_noticed_with_it_and_without(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    has_file: bool,
) -> None:
    waits = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waits.set()
        await trio.sleep_forever()

    network = SocketNetwork(nursery, app)
    if not has_file:
        monkeypatch.setattr("trio_gateway.server.http.end_watch.EndWatch", no_file_left)
    client = network.connect()
    await client.send_all(REQUEST)
    await waits.wait()
    assert network.servers_running == 1
    await client.aclose()
    await trio.sleep(LATE_S)
    assert network.servers_running == 0


async def test_an_answer_that_is_torn_before_anybody_waits_for_the_end_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"go", "more_body": True})

    async with served(app, ConnectionLimits()) as port:
        # It comes with the connection, so that all is over before another task has its turn.
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(REQUEST)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as client:
            with trio.fail_after(LATE_S):
                answer = b"".join([part async for part in client])
    assert answer.endswith(b"2\r\ngo\r\n")
    assert not caplog.records


async def test_a_body_that_comes_while_it_is_answered_is_read_when_it_is_asked_for() -> None:
    size, read = 4 * 1024 * 1024, 0
    asks = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal read
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"go", "more_body": True})
        await asks.wait()
        message: Message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            read += len(message["body"])
        await send({"type": "http.response.body", "body": b"!"})

    async def upload(client: trio.SocketStream) -> None:
        head = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % size
        await client.send_all(head + b"x" * size)

    async with served(app, ConnectionLimits()) as port, trio.open_nursery() as nursery:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        async with client:
            nursery.start_soon(upload, client)
            answer = b""
            with trio.fail_after(LATE_S):
                while b"go" not in answer:
                    answer += await client.receive_some(65536)
                asks.set()
                while b"!" not in answer:
                    answer += await client.receive_some(65536)
    assert read == size
