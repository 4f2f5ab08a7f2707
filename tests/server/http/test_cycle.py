"""What an app says and what its client gets: framing, heads, and what an app does wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from tests.support.memory_network import MemoryNetwork
from trio_gateway.server.http.types import AsgiApp, Message, Scope

Clock = trio.testing.MockClock
Send = Callable[[Message], Awaitable[None]]

GET = b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: g\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: g\r\n\r\n"
TEXT = (b"content-type", b"text/plain")


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def saying(*messages: Message) -> AsgiApp:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def answer_to(nursery: trio.Nursery, app: AsgiApp, *requests: bytes) -> bytes:
    """All that comes until the connection is closed, without the dates."""
    network = MemoryNetwork(nursery, app)
    network.config.include_date_header = network.config.include_server_header = False
    client = network.connect()
    await client.send_all(b"".join(requests))
    answer = b""
    with trio.fail_after(1000):
        while piece := await client.receive_some(65536):
            answer += piece
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert network.servers_running == 0
    return answer


@pytest.mark.parametrize(
    ("request_", "messages", "expected"),
    [
        # A body of one piece has its length, whoever forgot to say it.
        (GET, [start(200, TEXT), body(b"abc")],
         b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nabc"),
        (GET, [start(), body()], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"content-length", b"3")), body(b"abc")],
         b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
        # The end of one of several pieces is its own, or comes with the last.
        (GET, [start(), body(b"ab", more=True), body(more=True), body(b"c", more=True), body()],
         b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        (GET, [start(), body(b"ab", more=True), body(b"c")],
         b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        (GET, [start(200, (b"content-length", b"3")), body(b"ab", more=True), body(b"c")],
         b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
        # HTTP/1.0 knows no chunks; there, each connection has one request.
        (OLD, [start(), body(b"ab", more=True), body(b"c")],
         b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"),
        (OLD, [start(), body(b"abc")],
         b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"),
        # There is no body where there may be none, but its length may be said.
        (HEAD, [start(200, (b"content-length", b"3")), body(b"abc")],
         b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"),
        (HEAD, [start(), body(b"ab", more=True), body(b"c")], b"HTTP/1.1 200 OK\r\n\r\n"),
        (GET, [start(204), body()], b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, [start(204, (b"content-length", b"0"), TEXT), body()],
         b"HTTP/1.1 204 No Content\r\ncontent-type: text/plain\r\n\r\n"),
        (GET, [start(304), body(b"x")], b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (GET, [start(299), body()], b"HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"connection", b"close")), body()],
         b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
    ],
)  # fmt: skip
async def test_an_answer_is_framed_as_its_client_can_read_it(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    request_: bytes,
    messages: list[Message],
    expected: bytes,
) -> None:
    assert await answer_to(nursery, saying(*messages), request_) == expected


async def test_an_answer_has_the_date_at_which_it_began(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    begun = trio.current_time()
    headers = lambda _, protocol: [(b"age", b"%.0f" % (trio.current_time() - begun))]  # noqa: E731
    monkeypatch.setattr(Config, "response_headers", headers)

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        await trio.sleep(50)
        await saying(start(), body(b"late"))(scope, receive, send)

    client = MemoryNetwork(nursery, app).connect()
    await client.send_all(GET)
    assert b"\r\nage: 50\r\n" in await client.receive_some(65536)
    await client.aclose()


async def test_a_connection_goes_on_after_each_framing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    answers = [
        [start(), body(b"abc")],
        [start(), body(b"abc", more=True), body()],
        [start(204), body()],
    ]

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        for message in answers[int(scope["path"][1:])]:
            await send(message)

    requests = [b"GET /%d HTTP/1.1\r\nHost: g\r\n\r\n" % n for n in (0, 1, 2, 0)]
    answer = await answer_to(nursery, app, *requests)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"204", b"200"]


async def test_head_and_first_body_are_one_send(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = MemoryNetwork(nursery, saying(start(), body(b"ab", more=True), body())).connect()
    pieces = []
    await client.send_all(GET)
    pieces.append(await client.receive_some(65536))
    assert pieces[0].endswith(b"\r\n\r\n2\r\nab\r\n") or pieces[0].endswith(b"0\r\n\r\n")
    await client.aclose()


# -- what an app does wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],  # nothing of it was sent: an error is still possible
        [body(b"x")],
        [start(200, (b"x", b"a\r\nSet-Cookie: b")), body(b"secret")],
        [start(200, (b"x y", b"a")), body(b"secret")],
        [start(200, (b"Content-Length", b"6")), body(b"secret")],  # ASGI wants small letters
        [start(200, (b"x", b"a\x00")), body(b"secret")],
        [start(200, (b"content-length", b"5")), body(b"abc")],
        [start(200, (b"content-length", b"x")), body(b"abc")],
        [{"type": "http.response.trailers", "headers": []}],
    ],
)
async def test_nothing_that_cannot_be_sent_is_and_the_client_gets_a_500(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    messages: list[Message],
) -> None:
    answer = await answer_to(nursery, saying(*messages), GET, GET)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.count(b"HTTP/1.1 ") == 1  # and nothing after it
    assert b"connection: close" in answer
    assert b"secret" not in answer
    assert b"Set-Cookie" not in answer


@pytest.mark.parametrize(
    "messages",
    [
        [start(), body(b"abc", more=True)],
        [start(200, (b"content-length", b"5")), body(b"abc", more=True), body()],
        [start(200, (b"content-length", b"5")), body(b"abc", more=True), body(b"defg")],
        [start(), body(b"abc", more=True), start()],
    ],
)
async def test_an_answer_that_stops_halfway_never_looks_complete(
    autojump_clock: Clock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    messages: list[Message],
) -> None:
    answer = await answer_to(nursery, saying(*messages), GET, GET)
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" in head:
        assert not answer.endswith(b"0\r\n\r\n")
    else:
        assert len(rest) < 5


async def test_what_comes_after_the_end_does_not_reach_the_client(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(nursery, saying(start(), body(b"abc"), body(b"def")), GET)
    assert answer.endswith(b"\r\n\r\nabc")
    assert "after its end" in caplog.text


async def test_a_group_of_clients_that_left_is_not_a_bug(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(saying(start(), body(b"x" * 1000, more=True)), scope, receive, send)

    network = MemoryNetwork(nursery, app)
    client = network.connect(buffered=False)
    await client.send_all(GET)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert network.servers_running == 0
    assert "bug" not in caplog.text


# -- permission to send a body --------------------------------------------------------------------

EXPECTING = b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"


async def echo(scope: Scope, receive: Any, send: Send) -> None:
    data = b""
    while (message := await receive()).get("more_body"):
        data += message["body"]
    await send(start())
    await send(body(data + message["body"]))


async def test_a_client_that_waits_gets_its_permission_once_the_body_is_wanted(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = MemoryNetwork(nursery, echo).connect()
    await client.send_all(EXPECTING)
    assert await client.receive_some(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send_all(b"abc")
    assert (await client.receive_some(65536)).endswith(b"\r\n\r\nabc")
    await client.aclose()


async def test_one_that_does_not_wait_for_it_needs_none(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    answer = await answer_to(nursery, echo, EXPECTING + b"abc")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_refusal_comes_in_its_place(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    begun = trio.current_time()
    client = MemoryNetwork(nursery, saying(start(401), body(b"no"))).connect()
    await client.send_all(EXPECTING)
    answer = await client.receive_some(65536)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert trio.current_time() == begun
    # What it sends now may be the body or its next request.
    assert b"\r\nconnection: close\r\n" in answer
    assert await client.receive_some(65536) == b""
    assert trio.current_time() == begun
    await client.aclose()
