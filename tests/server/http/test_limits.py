"""What one client may take: headers, time, connections. Memory streams and a virtual clock."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.trio import serve

from tests.support.fakes import FakeEngines
from tests.support.memory_network import FakeSocket, MemoryNetwork
from tests.support.schema_values import config, model
from tests.support.socket_network import SocketNetwork
from tests.support.stack import running_stack
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.http import client_connections
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.connection_counts import ConnectionCounts, address_group
from trio_gateway.server.http.install import install
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import Scope

Clock = trio.testing.MockClock

LIMITS = ConnectionLimits(
    max_header_bytes=1000,
    header_timeout_s=10,
    requests_per_connection=2,
    connections_per_address=2,
)
REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


KINDS = pytest.mark.parametrize("kind", [MemoryNetwork, SocketNetwork])


def network(
    nursery: trio.Nursery, app: Any = hello, kind: type[MemoryNetwork] = MemoryNetwork
) -> MemoryNetwork:
    found = kind(nursery, RequestScopes(app), ClientConnections(LIMITS))
    found.config = HttpConfig(LIMITS)
    found.config.keep_alive_timeout = 75
    return found


async def all_of(client: Any) -> tuple[bytes, float]:
    """What comes until the connection ends, and when that was."""
    answer = b""
    with trio.fail_after(1000):
        while piece := await client.receive_some(65536):
            answer += piece
    return answer, trio.current_time()


def code_of(answer: bytes) -> str:
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


# -- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 60])
async def test_headers_that_are_too_large_get_431(
    autojump_clock: Clock, nursery: trio.Nursery, pieces: int
) -> None:
    client = network(nursery).connect()
    head = b"GET / HTTP/1.1\r\nHost: gateway\r\nX: " + b"x" * 2000 + b"\r\n\r\n"
    size = -(-len(head) // pieces)
    with contextlib.suppress(trio.BrokenResourceError):  # it is not read to its end
        for start in range(0, len(head), size):
            await client.send_all(head[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
    answer, ended_at = await all_of(client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert code_of(answer) == "headers_too_large"
    assert ended_at < 1


async def test_a_long_path_counts_too(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    client = network(nursery).connect()
    await client.send_all(b"GET /" + b"x" * 1000 + b" HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert (await all_of(client))[0].startswith(b"HTTP/1.1 431 ")


async def test_headers_that_just_fit_are_served(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = network(nursery).connect()
    await client.send_all(b"GET / HTTP/1.1\r\nHost: gateway\r\nX: " + b"x" * 900 + b"\r\n\r\n")
    assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    nursery.cancel_scope.cancel(reason="the test is over")


async def drip(client: Any, data: bytes, every_s: float) -> None:
    for byte in data:
        try:
            await client.send_all(bytes([byte]))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        await trio.sleep(every_s)


@KINDS
async def test_slow_headers_get_408_although_each_byte_comes_soon(
    autojump_clock: Clock, nursery: trio.Nursery, kind: type[MemoryNetwork]
) -> None:
    client = network(nursery, kind=kind).connect()
    begun = trio.current_time()
    nursery.start_soon(drip, client, b"GET / HTTP/1.1\r\nHost: gateway\r\nX: " + b"x" * 500, 1)
    answer, ended_at = await all_of(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert code_of(answer) == "header_timeout"
    assert ended_at - begun == pytest.approx(10)


@KINDS
async def test_the_second_request_of_a_connection_has_the_same_time(
    autojump_clock: Clock, nursery: trio.Nursery, kind: type[MemoryNetwork]
) -> None:
    client = network(nursery, kind=kind).connect()
    await client.send_all(REQUEST + b"GET / HT")  # begun before the first is answered
    answer, ended_at = await all_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer
    assert ended_at == pytest.approx(10, abs=1)


async def test_a_request_that_takes_long_is_not_cut_by_the_time_for_headers(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await trio.sleep(500)
        await hello(scope, receive, send)

    client = network(nursery, slow).connect()
    await client.send_all(REQUEST[:10])
    await trio.sleep(9)
    await client.send_all(REQUEST[10:])
    with trio.fail_after(1000):
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    nursery.cancel_scope.cancel(reason="the test is over")


@KINDS
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HT",
        b"\x00\xff\r\n\r\n",
        b"\x00\xff\r\n\r\nGET / HT",
        REQUEST + b"GET / HT",
        b"x" * 2000,
    ],
)
async def test_a_client_that_leaves_in_the_middle_is_let_go_at_once(
    autojump_clock: Clock, nursery: trio.Nursery, kind: type[MemoryNetwork], data: bytes
) -> None:
    net = network(nursery, kind=kind)
    for waits in (True, False):
        client = net.connect()
        await client.send_all(data)
        if waits:
            await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.sleep(1)
        assert net.servers_running == 0


@KINDS
async def test_a_connection_that_stays_silent_has_the_keep_alive_time(
    autojump_clock: Clock, nursery: trio.Nursery, kind: type[MemoryNetwork]
) -> None:
    client = network(nursery, kind=kind).connect()
    answer, ended_at = await all_of(client)
    assert answer == b""
    assert ended_at == pytest.approx(75)


async def test_what_is_not_http_gets_a_400_that_says_so(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = network(nursery).connect()
    await client.send_all(b"\x16\x03\x01 not HTTP\r\n\r\n")
    answer, _ = await all_of(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert code_of(answer) == "invalid_http"


# -- requests and connections ---------------------------------------------------------------------


async def test_a_connection_closes_after_so_many_requests(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = network(nursery).connect()
    for _ in range(LIMITS.requests_per_connection):
        await client.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()
    answer, ended_at = await all_of(client)
    assert answer.count(b"HTTP/1.1 200") == LIMITS.requests_per_connection
    assert answer.lower().count(b"connection: close") == 1
    assert ended_at < 1


async def test_an_address_has_so_many_connections_and_a_closed_one_makes_room(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await trio.sleep(500)
        await hello(scope, receive, send)

    net = network(nursery, slow)
    first, second = net.connect(), net.connect()
    for client in (first, second):
        await client.send_all(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        answer, _ = await all_of(net.connect())
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert code_of(answer) == "too_many_connections"
    assert caplog.text.count("127.0.0.1 has 2 connections") == 1
    await first.aclose()
    await trio.sleep(1)
    third = net.connect()
    await third.send_all(REQUEST)
    assert (await third.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    for client in (second, third):
        await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert net.connections.counts is not None
    assert len(net.connections.counts) == 0


@pytest.mark.parametrize("said", [b"", REQUEST, REQUEST[:-2]])
async def test_an_address_with_all_its_connections_loses_one_that_says_nothing_for_another(
    autojump_clock: Clock, nursery: trio.Nursery, said: bytes
) -> None:
    net = network(nursery)
    for _ in range(10):
        await net.connect().send_all(said)
        await trio.testing.wait_all_tasks_blocked()
        client = net.connect()
        await client.send_all(REQUEST)
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
        await trio.testing.wait_all_tasks_blocked()
        assert net.servers_running == LIMITS.connections_per_address
    nursery.cancel_scope.cancel(reason="the test is over")


async def test_another_address_has_its_own_and_a_unix_socket_is_not_counted(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(nursery)
    peers: list[Any] = ["", "", "", ("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 1)]

    def getpeername(self: Any) -> Any:
        self.peer = self.peer if hasattr(self, "peer") else peers.pop(0)
        return self.peer

    monkeypatch.setattr(FakeSocket, "getpeername", getpeername)
    clients = [net.connect() for _ in range(6)]
    await trio.testing.wait_all_tasks_blocked()
    for client in clients:
        await client.send_all(REQUEST)
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    nursery.cancel_scope.cancel(reason="the test is over")


def test_counts_forget_addresses_without_connections() -> None:
    counts = ConnectionCounts(2)
    assert [counts.enter("a"), counts.enter("a"), counts.enter("a")] == [True, True, False]
    assert counts.enter("b")
    counts.leave("a")
    assert counts.enter("a")
    for address in "aab":
        counts.leave(address)
    assert len(counts) == 0


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::1", "::1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("2001:db8:1:2:9::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"), (None, "unix"), ("odd", "odd"),
    ],
)  # fmt: skip
def test_an_ipv6_client_is_its_network(host: str | None, group: str) -> None:
    assert address_group(host) == group


# -- bodies ---------------------------------------------------------------------------------------


async def test_a_slow_body_gets_408(autojump_clock: Clock) -> None:
    limits = ConnectionLimits(body_timeout_s=20)
    async with running_stack(config(model("m"), limits=limits)) as stack:
        client = stack.network.connect()
        begun = trio.current_time()
        await client.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 999\r\n\r\n{"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, b" " * 100, 1)
            answer = b""
            while b"body_timeout" not in answer:
                answer += await client.receive_some(65536)
            nursery.cancel_scope.cancel(reason="answered")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - begun == pytest.approx(20, abs=6)
        assert stack.engines.processes == []


# -- real sockets ---------------------------------------------------------------------------------


async def test_a_refused_connection_is_told_so_over_a_real_socket(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_connections, "_REFUSE_S", 10.0)
    install(ClientConnections(LIMITS))
    engines = FakeEngines()
    given = config(model("m"))
    gateway = Gateway(given, engines.manager(given))
    plain = socket.create_server(("127.0.0.1", 0))
    port = plain.getsockname()[1]
    settings = HttpConfig(LIMITS, plain=[plain])
    settings.accesslog = settings.errorlog = None
    stop = trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            gateway,  # type: ignore[arg-type]
            settings,
            shutdown_trigger=stop.wait,
            task_status=task_status,
        )

    await nursery.start(run)
    held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
    for stream in held:
        await stream.send_all(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
    client = await trio.open_tcp_stream("127.0.0.1", port)
    assert (await client.receive_some()).startswith(b"HTTP/1.1 429")
    await client.aclose()
    for stream in held:
        await stream.aclose()
    stop.set()
