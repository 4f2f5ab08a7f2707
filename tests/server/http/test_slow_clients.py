"""Clients that are slow or greedy: each holds up itself and nobody else, and not for ever.

In memory with a virtual clock where the time is long, over real sockets where the system's buffers
matter.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.memory_network import MemoryNetwork
from tests.support.patience import patient
from tests.support.real_sockets import authority, served, tiny_window
from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.http import inbox, wire
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.types import LINGER_S, AsgiApp, Scope

Clock = trio.testing.MockClock

LIMITS = ConnectionLimits(header_timeout_s=10, send_timeout_s=20)
KEEP_ALIVE_S = 75.0
REQUEST = b"GET /%b HTTP/1.1\r\nHost: gateway\r\n\r\n"
# What the connection may hold of a client's: its own, and what was read last.
HELD_MAX_BYTES = inbox.INBOX_MAX_BYTES + wire.READ_BYTES
BIT = b"x" * 100_000


async def echo_path(scope: Scope, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"<%b>" % scope["raw_path"][1:]})


async def endless(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": BIT, "more_body": True})


def network(nursery: trio.Nursery, app: AsgiApp = echo_path) -> MemoryNetwork:
    found = MemoryNetwork(nursery, app, ClientConnections(LIMITS, counted=False))
    found.config = HttpConfig(LIMITS)
    found.config.keep_alive_timeout = KEEP_ALIVE_S
    found.config.keep_alive_max_requests = 10_000
    return found


async def heard(client: Any, until: bytes = b"") -> bytes:
    """What comes up to these bytes, or to the end of the connection."""
    answer = b""
    with trio.fail_after(1000):
        while not until or until not in answer:
            if not (piece := await client.receive_some(65536)):
                assert not until, answer
                break
            answer += piece
    return answer


async def send_all_it_can(client: Any, data: bytes) -> None:
    """In small parts, until the server has let the client go."""
    try:
        for start in range(0, len(data), 100):
            await client.send_all(data[start : start + 100])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


# -- slow heads -----------------------------------------------------------------------------------


async def test_clients_that_send_one_byte_and_fall_silent_are_let_go_and_hinder_nobody(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    silent = [net.connect() for _ in range(200)]
    for client in silent:
        await client.send_all(b"G")
    await trio.testing.wait_all_tasks_blocked()
    assert net.servers_running == len(silent)
    other = net.connect()
    await other.send_all(REQUEST % b"other")
    await heard(other, b"<other>")
    assert trio.current_time() == 0
    await other.aclose()
    for client in silent:
        assert (await heard(client)).startswith(b"HTTP/1.1 408 ")
        await client.aclose()
    assert trio.current_time() == pytest.approx(LIMITS.header_timeout_s)
    await trio.testing.wait_all_tasks_blocked()
    assert net.servers_running == 0


async def test_a_request_may_come_byte_by_byte_if_all_of_it_comes_in_time(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = network(nursery).connect()
    for n in range(3):
        for byte in REQUEST % b"%d" % n:
            await client.send_all(bytes([byte]))
            await trio.sleep(0.2)
        await heard(client, b"<%d>" % n)


async def test_a_client_that_is_refused_late_has_its_time_to_read_that(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    net = network(nursery)
    client = net.connect()
    await client.send_all(b"GET / HT")
    await trio.sleep(LIMITS.header_timeout_s - 1)
    await client.send_all(b"TP\n\n")
    assert (await heard(client)).startswith(b"HTTP/1.1 400 ")
    await trio.sleep(LINGER_S + 1)
    assert net.servers_running == 0
    assert not caplog.records


async def test_what_a_refused_client_still_sends_is_thrown_away_for_a_while(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    client = net.connect(buffered=False)
    nursery.start_soon(send_all_it_can, client, b"\x00" * 10 + BIT * 2)
    answer = await heard(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1
    await trio.sleep(LINGER_S + 1)
    assert net.servers_running == 0


async def test_a_refused_client_that_reads_nothing_is_let_go(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    client = net.connect(buffered=False)
    await client.send_all(b"\x00")
    await trio.sleep(LINGER_S + 1)
    assert net.servers_running == 0


# -- slow bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "piece"),
    [(b"Content-Length: 9999", b" "), (b"Transfer-Encoding: chunked", b"1\r\n \r\n")],
)
async def test_a_body_that_drips_gets_408_however_it_is_framed(
    autojump_clock: Clock, framing: bytes, piece: bytes
) -> None:
    limits = ConnectionLimits(body_timeout_s=20)
    async with running_stack(config(model("m"), limits=limits)) as stack:
        client = stack.network.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n%b\r\n\r\n"
        await client.send_all(head % framing)

        async def drip() -> None:
            while True:
                await send_all_it_can(client, piece)
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer = await heard(client, b"body_timeout")
            nursery.cancel_scope.cancel(reason="answered")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() == pytest.approx(20, abs=6)
        assert stack.engines.processes == []


async def test_a_body_of_tiny_chunks_hinders_nobody(nursery: trio.Nursery) -> None:
    """Others have their turn all the time, as they do beside a body in large chunks."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    client = network(nursery).connect()
    head = b"POST /big HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = 20_000
    nursery.start_soon(other)
    await client.send_all(head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
    await heard(client, b"<big>")
    nursery.cancel_scope.cancel(reason="answered")
    assert turns > chunks / 1000


# -- pipelining -----------------------------------------------------------------------------------


async def test_a_thousand_requests_in_one_piece_are_answered_in_order(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = network(nursery).connect()
    numbers = range(1000)
    await client.send_all(b"".join(REQUEST % b"%d" % n for n in numbers))
    answers = await heard(client, b"<999>")
    assert answers.count(b"HTTP/1.1 200 ") == len(numbers)
    places = [answers.index(b"<%d>" % n) for n in numbers]
    assert places == sorted(places)


async def test_of_a_client_that_sends_on_and_reads_nothing_only_so_much_is_taken(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    client = net.connect(buffered=False)
    taken = 0

    async def flood() -> None:
        nonlocal taken
        while True:
            await client.send_all(REQUEST % b"x")
            taken += len(REQUEST)

    async with trio.open_nursery() as flooding:
        flooding.start_soon(flood)
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.INBOX_MAX_BYTES / 2 < taken < HELD_MAX_BYTES
        flooding.cancel_scope.cancel(reason="it stands still")
    # It takes nothing of its first answer, either.
    await trio.sleep(LIMITS.send_timeout_s + 1)
    assert net.servers_running == 0


# -- slow readers, over real sockets --------------------------------------------------------------

SIZE = 5_000_000  # more than the system takes ahead
BOTH = pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])


async def read_to_the_end(client: Any) -> bytes:
    answer = b""
    while piece := await client.receive_some(65536):
        answer += bytes(piece)
    return answer


@BOTH
async def test_a_client_that_takes_nothing_is_let_go_and_its_app_is_cancelled(is_tls: bool) -> None:
    ended = trio.Event()
    sent = 0

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        nonlocal sent
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": BIT, "more_body": True})
                sent += len(BIT)
        finally:
            ended.set()

    ca = authority(is_tls)
    async with served(app, ConnectionLimits(send_timeout_s=0.3), ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all(REQUEST % b"")
        with trio.fail_after(10):
            await ended.wait()
        assert sent < 30_000_000  # the system's buffers, and nothing of ours
        await trio.aclose_forcefully(client)


@BOTH
@pytest.mark.parametrize("is_torn", [True, False])
async def test_an_old_client_sees_whether_its_answer_is_complete(
    is_tls: bool, is_torn: bool
) -> None:
    """In HTTP/1.0 it ends with the connection."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await go_on.wait()
        if not is_torn:
            await send({"type": "http.response.body", "body": b"!"})

    go_on = trio.Event()
    ca = authority(is_tls)
    async with served(app, ConnectionLimits(), ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all((REQUEST % b"").replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await client.receive_some(65536)
        go_on.set()
        with trio.fail_after(10):
            if is_torn:
                with pytest.raises(trio.BrokenResourceError):
                    await read_to_the_end(client)
            else:
                assert (answer + await read_to_the_end(client)).endswith(b"half!")
        await trio.aclose_forcefully(client)


@BOTH
async def test_after_a_send_that_was_cut_off_nothing_is_sent(is_tls: bool) -> None:
    ended = trio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            with trio.move_on_after(0.3):
                await send({"type": "http.response.body", "body": b"x" * SIZE, "more_body": True})
            await send({"type": "http.response.body", "body": b"the end"})
        finally:
            ended.set()

    ca = authority(is_tls)
    async with served(app, ConnectionLimits(), ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all(REQUEST % b"")
        with trio.fail_after(10):
            await ended.wait()
            answer = b""
            with suppress(trio.BrokenResourceError):
                while piece := await client.receive_some(65536):
                    answer += piece
        assert len(answer) < SIZE
        assert not answer.endswith(b"0\r\n\r\n")
        await trio.aclose_forcefully(client)


@pytest.mark.slow
@BOTH
async def test_a_client_that_reads_slowly_keeps_its_answer(is_tls: bool) -> None:

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * SIZE})

    ca, limit_s = authority(is_tls), patient(0.5)  # on a busy machine the test is slow itself
    async with served(app, ConnectionLimits(send_timeout_s=limit_s), ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all(REQUEST % b"")
        got, begun = 0, trio.current_time()
        while trio.current_time() < begun + 2 * limit_s:
            got += len(await client.receive_some(20_000))
            await trio.sleep(0.002)
        with trio.fail_after(20):
            while got < SIZE:
                piece = await client.receive_some(65536)
                assert piece, "it was cut"
                got += len(piece)
        await trio.aclose_forcefully(client)


async def test_a_client_that_begins_tls_and_falls_silent_is_let_go() -> None:
    ca = authority(is_tls=True)
    async with served(echo_path, ConnectionLimits(header_timeout_s=0.2), ca) as port:
        for said in (b"", b"\x16\x03\x01"):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            await client.send_all(said)
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                assert await client.receive_some() == b""
            await client.aclose()


async def test_a_server_that_stops_waits_for_no_client_that_begins_tls() -> None:
    ca = authority(is_tls=True)
    limits = ConnectionLimits()
    connections = ClientConnections(limits, counted=False)
    async with served(echo_path, limits, ca, connections) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(10):
            while not len(connections):  # noqa: ASYNC110 - known to the server only
                await trio.sleep(0.01)
        connections.stop()
        with trio.fail_after(10):
            assert await client.receive_some() == b""
        await client.aclose()


@BOTH
async def test_a_websocket_whose_client_takes_nothing_is_let_go(is_tls: bool) -> None:
    ended = trio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        try:
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "bytes": BIT})
        finally:
            ended.set()

    handshake = (
        b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    ca = authority(is_tls)
    async with served(app, ConnectionLimits(send_timeout_s=0.3), ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all(handshake)
        with trio.fail_after(10):
            await ended.wait()
        await trio.aclose_forcefully(client)


async def test_slow_readers_do_not_slow_down_others() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await (endless if scope["path"] == "/endless" else echo_path)(scope, receive, send)

    async with served(app, ConnectionLimits(send_timeout_s=30)) as port:
        slow = [await tiny_window(port) for _ in range(20)]
        for client in slow:
            await client.send_all(REQUEST % b"endless")
            await client.receive_some(1)
        other = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(10):
            for n in range(50):
                await other.send_all(REQUEST % b"%d" % n)
                await heard(other, b"<%d>" % n)
        for client in (*slow, other):
            await client.aclose()
