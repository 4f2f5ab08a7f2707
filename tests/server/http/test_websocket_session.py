"""A client's WebSocket as its app sees it. The client is wsproto too, over memory streams."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason

from trio_gateway.server.http import websocket_inbox, websocket_session
from trio_gateway.server.http.types import ClientGone, Message, Receive, Scope, Send
from trio_gateway.server.http.websocket_session import serve_websocket

App = Callable[[Scope, Receive, Send], Awaitable[None]]
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = [
    (b"host", b"gateway"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"WebSocket"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]
# All masked by zeros. Of a text: a frame of one byte that goes on, and that begins one.
ONE_MORE_BYTE, FIRST_BYTE = b"\x00\x81\x00\x00\x00\x00x", b"\x01\x81\x00\x00\x00\x00x"
EMPTY_MESSAGE = b"\x81\x80\x00\x00\x00\x00"
MOST = 100_000
BUSY_S = 5.0  # an app that does something else


def scope_of(headers: list[tuple[bytes, bytes]] = HEADERS, **more: Any) -> Scope:
    return {
        "type": "websocket",
        "http_version": "1.1",
        "path": "/v1/realtime",
        "headers": headers,
        "subprotocols": [],
        **more,
    }


class MemoryWire:
    """The server's end of a memory stream, as a connection gives it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientGone from None


class Client:
    """wsproto's client. Its handshake was sent: the scope has it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.over = trio.Event()  # the server is done with the connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._protocol.send(Request(host="gateway", target="/", extensions=[PerMessageDeflate()]))
        # wsproto chose another key than the scope's.
        self._protocol.handshake._nonce = KEY
        self._events: list[Event] = []

    async def say(self, event: Event) -> None:
        await self.stream.send_all(self._protocol.send(event))

    async def hear(self) -> Event:
        """What the server says next."""
        with trio.fail_after(10):
            while not self._events:
                data = await self.stream.receive_some(65536)
                assert data, "the server closed the connection"
                self._protocol.receive_data(data)
                self._events += self._protocol.events()
        return self._events.pop(0)

    async def hear_close(self) -> tuple[int, str]:
        """How the server closes; it gets an answer."""
        close = await self.hear()
        assert isinstance(close, CloseConnection)
        if self._protocol.state is ConnectionState.REMOTE_CLOSING:
            await self.say(close.response())
        return int(close.code), close.reason or ""

    async def hear_all(self) -> bytes:
        """Raw, until the connection ends."""
        heard = b""
        with trio.fail_after(10):
            while piece := await self.stream.receive_some(65536):
                heard += piece
        return heard

    async def refusal(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of an answer in plain HTTP."""
        event = await self.hear()
        assert isinstance(event, RejectConnection)
        body = b""
        while True:
            part = await self.hear()
            assert isinstance(part, RejectData)
            body += bytes(part.data)
            if part.body_finished:
                return event.status_code, dict(event.headers), body


@asynccontextmanager
async def serving(
    app: App,
    scope: Scope | None = None,
    *,
    max_message_bytes: int = MOST,
    ping_interval_s: float | None = None,
    buffered: bool = True,
    turn: trio.Lock | None = None,
) -> AsyncIterator[Client]:
    """A client of an app. Leaving, it closes its connection; all must then end by itself."""
    pair = trio.testing.memory_stream_pair if buffered else trio.testing.lockstep_stream_pair
    ours, theirs = pair()
    client = Client(ours)

    async def serve() -> None:
        await serve_websocket(
            MemoryWire(theirs), app, scope or scope_of(),
            max_message_bytes=max_message_bytes, ping_interval_s=ping_interval_s, turn=turn,
        )  # fmt: skip
        await theirs.aclose()
        client.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield client
        await ours.aclose()
        with trio.fail_after(10):
            await client.over.wait()


@asynccontextmanager
async def connected(app: App, **options: Any) -> AsyncIterator[Client]:
    async with serving(app, **options) as client:
        assert isinstance(await client.hear(), AcceptConnection)
        yield client


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def never_asks(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await trio.sleep(BUSY_S)


class Listener:
    """An app that writes down what it gets."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while not self.heard or self.heard[-1]["type"] != "websocket.disconnect":
            self.heard.append(await receive())

    @property
    def end(self) -> tuple[int, str]:
        return self.heard[-1]["code"], self.heard[-1]["reason"]


# -- the handshake --------------------------------------------------------------------------------


async def test_the_app_sees_its_scope_and_is_asked_first() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await accept(receive, send)

    scope = scope_of(subprotocols=["a"])
    async with serving(app, scope) as client:
        await client.hear()
    assert seen == [scope]


async def test_the_app_chooses_the_subprotocol_and_adds_headers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send, subprotocol="b", headers=[(b"x-mine", b"1")])

    scope = scope_of([*HEADERS, (b"sec-websocket-protocol", b"a, b")])
    async with serving(app, scope) as client:
        answer = await client.hear_all()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in answer
    assert b"\r\nx-mine: 1\r\n" in answer


async def test_compression_is_not_agreed_to() -> None:
    offer = (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits=x")
    async with serving(echo, scope_of([*HEADERS, offer])) as client:
        answer = await client.hear()
    assert isinstance(answer, AcceptConnection)
    assert not answer.extensions


def without(*names: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in HEADERS if name not in names]


VERSION, UPGRADE = b"sec-websocket-version", b"upgrade"


@pytest.mark.parametrize(
    ("scope", "status", "said"),
    [
        (scope_of(without(b"sec-websocket-key")), 400, "Sec-WebSocket-Key"),
        (scope_of([*HEADERS, (b"Sec-WebSocket-Key", KEY)]), 400, "Sec-WebSocket-Key"),
        *(
            (scope_of([*without(b"sec-websocket-key"), (b"sec-websocket-key", key)]), 400, "-Key")
            for key in (b"", b"AAAA", b"!!!!", b"\xff", KEY + b"AAAA", KEY[:-1])
        ),
        (scope_of(without(VERSION)), 400, "Sec-WebSocket-Version"),
        (scope_of([*without(VERSION), (VERSION, b"8")]), 426, "version 13"),
        (scope_of([*HEADERS, (VERSION, b"8")]), 426, "version 13"),
        (scope_of(without(b"connection")), 400, "Connection"),
        (scope_of(without(UPGRADE)), 400, "Upgrade"),
        (scope_of([*without(UPGRADE), (UPGRADE, b"h2c")]), 400, "Upgrade"),
        (scope_of(without(b"host")), 400, "Host"),
        (scope_of([*without(b"host"), (b"host", b"\xff")]), 400, "plain text"),
        (scope_of([*HEADERS, (b"sec-websocket-protocol", b"\xc3\xbc")]), 400, "plain text"),
        (scope_of([*HEADERS, (b"content-length", b"1")]), 400, "no body"),
        (scope_of([*HEADERS, (b"transfer-encoding", b"chunked")]), 400, "no body"),
        (scope_of(http_version="1.0"), 400, "HTTP/1.1"),
    ],
)
async def test_a_handshake_that_is_not_valid_gets_a_clear_error(
    scope: Scope, status: int, said: str
) -> None:
    async with serving(echo, scope) as client:
        found, headers, body = await client.refusal()
        await client.over.wait()
    assert found == status
    error = json.loads(body)["error"]
    assert said in error["message"]
    assert error["code"] == "invalid_websocket"
    assert headers[b"connection"] == b"close"
    assert (headers.get(VERSION) == b"13") == ("ersion" in said)


async def test_such_an_error_has_the_shape_of_the_client_s_api() -> None:
    scope = scope_of([*without(VERSION), (b"anthropic-version", b"2023-06-01")])
    async with serving(echo, scope) as client:
        _, _, body = await client.refusal()
    assert json.loads(body)["type"] == "error"


async def test_an_app_that_closes_before_it_accepts_refuses() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async with serving(app) as client:
        status, headers, _ = await client.refusal()
        assert (status, headers[b"connection"]) == (403, b"close")
        await client.over.wait()


@pytest.mark.parametrize("length", [[], [(b"content-length", b"8")]])
async def test_an_app_may_refuse_in_plain_http(
    length: list[tuple[bytes, bytes]], autojump_clock: trio.testing.MockClock
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-mine", b"1"), (b"Connection", b"keep-alive"), *length]
        await send({"type": "websocket.http.response.start", "status": 451, "headers": headers})
        for piece, more in ((b"not ", True), (b"here", False)):
            body = {"type": "websocket.http.response.body", "body": piece, "more_body": more}
            await send(body)
            await trio.sleep(1)

    async with serving(app) as client:
        status, headers, body = await client.refusal()
        await client.over.wait()
    assert (status, headers[b"x-mine"], headers[b"connection"]) == (451, b"1", b"close")
    assert body == b"not here"


async def test_a_refusal_that_is_not_finished_does_not_look_complete() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 451, "headers": []})
        body = {"type": "websocket.http.response.body", "body": b"half", "more_body": True}
        await send(body)

    async with serving(app) as client:
        answer = await client.hear_all()
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("said", [b"x", EMPTY_MESSAGE, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_client_that_speaks_before_it_is_answered_is_refused_and_the_app_is_told(
    said: bytes,
) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append(await receive())
        await send({"type": "websocket.accept"})  # too late, and nothing happens
        await send({"type": "websocket.close"})

    async with serving(app) as client:
        await client.stream.send_all(said)
        status, _, body = await client.refusal()
        assert status == 400
        assert "before it was answered" in json.loads(body)["error"]["message"]
        assert await client.hear_all() == b""
    assert (heard[0]["type"], heard[0]["code"]) == ("websocket.disconnect", 1002)


async def test_what_such_a_client_still_says_is_read_so_that_it_gets_its_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with serving(app, buffered=False) as client:
        await client.stream.send_all(b"x")
        heard: list[bytes] = []

        async def hear() -> None:
            heard.append(await client.hear_all())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            await client.stream.send_all(b"x" * 100_000)
    assert heard[0].startswith(b"HTTP/1.1 400 ")


async def test_the_app_learns_that_its_client_left_before_it_was_answered() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append(await receive())
        await send({"type": "websocket.accept"})

    async with serving(app):
        pass
    assert heard == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


# -- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "text", "ü" * 1000, b"", b"bytes", b"\x00" * MOST])
async def test_messages_go_both_ways_as_what_they_are(message: str | bytes) -> None:
    async with connected(echo) as client:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await client.say(event)
        back: Any = message[:0]
        is_whole = False
        while not is_whole:
            part = await client.hear()
            assert isinstance(part, (TextMessage, BytesMessage))
            assert type(part) is type(event)
            back, is_whole = back + part.data, part.message_finished
    assert back == message


async def test_an_app_that_goes_on_sending_after_the_end_leaves_others_their_turns() -> None:
    turns = left_to_others = 0

    async def goes_on(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal left_to_others
        await accept(receive, send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        before = turns
        for _ in range(100):
            await send({"type": "websocket.send", "text": "x"})
        left_to_others = turns - before

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async with connected(goes_on) as client:
            await client.say(CloseConnection(1000))
            await client.hear()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert left_to_others >= 50


async def test_what_comes_in_pieces_is_one_message() -> None:
    listener = Listener()
    async with connected(listener) as client:
        for piece, is_last in (("a\N{BULLET}", False), ("", False), ("b", True)):
            await client.say(TextMessage(piece, message_finished=is_last))
        await client.say(CloseConnection(1000))
        await client.hear()
    assert [m.get("text") for m in listener.heard] == ["a\N{BULLET}b", None]
    assert listener.heard[0]["bytes"] is None


async def test_frames_may_be_cut_anywhere(autojump_clock: trio.testing.MockClock) -> None:
    listener = Listener()
    async with connected(listener) as client:
        frames = client._protocol.send(TextMessage("ü", message_finished=False))
        frames += client._protocol.send(Ping(b"in between"))
        frames += client._protocol.send(TextMessage("x" * 300))
        frames += client._protocol.send(CloseConnection(1000, "bye"))
        for byte in frames:
            await client.stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await client.hear() == Pong(b"in between")
        assert await client.hear_close() == (1000, "bye")
    assert listener.heard[0]["text"] == "ü" + "x" * 300
    assert listener.end == (1000, "bye")


# -- while the app does something else ------------------------------------------------------------


async def test_a_ping_is_answered_while_the_app_does_not_ask(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected(never_asks) as client:
        await client.say(TextMessage("nobody reads this"))
        await client.say(Ping(b"there?"))
        assert await client.hear() == Pong(b"there?")
        assert trio.current_time() < BUSY_S


async def test_a_close_is_answered_while_the_app_does_not_ask(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected(never_asks) as client:
        await client.say(CloseConnection(4000, "enough"))
        assert await client.hear_close() == (4000, "enough")
        assert trio.current_time() < BUSY_S


async def test_what_the_app_says_after_that_is_for_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await trio.sleep(1)
        await send({"type": "websocket.send", "text": "too late"})
        await send({"type": "websocket.close", "code": 1000})

    async with connected(app) as client:
        await client.say(CloseConnection(1000))
        await client.hear_close()
        assert await client.hear_all() == b""


@pytest.mark.parametrize("message", [EMPTY_MESSAGE, b"\x82\xfe\x03\xe8" + bytes(1004)])
async def test_what_the_app_does_not_take_waits_at_the_client(message: bytes) -> None:
    asks = trio.Event()
    listener = Listener()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await asks.wait()
        while (await receive())["type"] == "websocket.receive":
            listener.heard.append({})

    sent = 0
    async with connected(app, buffered=False) as client:

        async def flood() -> None:
            nonlocal sent
            while True:
                await client.stream.send_all(message * 10)
                sent += 10

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            stood = sent
            assert stood <= websocket_inbox.INBOX_BYTES / 50
            asks.set()
            while len(listener.heard) <= stood:  # noqa: ASYNC110 - until it goes on
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel(reason="the client goes on")


async def test_an_app_that_ends_without_having_taken_all_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await trio.sleep(1)

    async with connected(app) as client:
        await client.stream.send_all((b"\x82\xfe\x03\xe8" + bytes(1004)) * 200)
        assert await client.hear_close() == (1011, "")
        await client.over.wait()


async def test_pings_are_sent_while_it_is_open(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(never_asks, ping_interval_s=2) as client:
        for n in (1, 2):
            assert isinstance(await client.hear(), Ping)
            assert trio.current_time() == pytest.approx(2 * n)


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 100])
@pytest.mark.parametrize("letter", [b"x", "x", "ü"])
async def test_a_message_may_be_as_large_as_allowed_and_not_a_byte_larger(
    pieces: int, letter: Any
) -> None:
    listener = Listener()
    most = MOST // len(letter.encode() if isinstance(letter, str) else letter)
    kind: Any = TextMessage if isinstance(letter, str) else BytesMessage
    async with connected(listener) as client:
        for size in (most, most + 1):
            for n in range(pieces):
                part = size // pieces + (n < size % pieces)
                await client.say(kind(letter * part, message_finished=n == pieces - 1))
        code, reason = await client.hear_close()
        assert (code, str(MOST) in reason) == (1009, True)
    first, last = listener.heard
    assert first["bytes" if isinstance(letter, bytes) else "text"] == letter * most
    assert listener.end == (1009, reason)
    assert last["type"] == "websocket.disconnect"


async def test_a_message_without_end_is_not_collected() -> None:
    listener = Listener()
    async with connected(listener, buffered=False) as client:
        # Frames of 1000 bytes; none is the last one of its message.
        frame = b"\xfe" + (1000).to_bytes(2, "big") + bytes(4) + bytes(1000)
        taken = 0

        async def flood() -> None:
            nonlocal taken
            try:
                await client.stream.send_all(b"\x02" + frame)
                while True:
                    await client.stream.send_all(b"\x00" + frame)
                    taken += 1
            except trio.BrokenResourceError:
                pass  # closed at last

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            close = await client.hear()
            assert isinstance(close, CloseConnection)
            assert close.code == 1009
            assert MOST <= taken * 1000 <= MOST + 70_000
            # It listens for the client's part of the close, but not for ever.
            before = trio.current_time()
            with trio.move_on_after(websocket_session.CLOSE_S * 2):
                await client.over.wait()
            nursery.cancel_scope.cancel(reason="seen")
        assert trio.current_time() - before <= websocket_session.CLOSE_S * 2
    assert [m["type"] for m in listener.heard] == ["websocket.disconnect"]
    assert listener.end[0] == 1009


async def test_a_message_of_very_many_fragments_costs_others_little() -> None:
    """Each read passes many checkpoints, and costs what its bytes do: not what came before it."""
    listener, turns = Listener(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    fragments = 20_000
    async with connected(listener, buffered=False) as client, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await client.stream.send_all(FIRST_BYTE)
        for _ in range(fragments // 5000):
            await client.stream.send_all(ONE_MORE_BYTE * 5000)
        await client.stream.send_all(b"\x80" + ONE_MORE_BYTE[1:])
        nursery.start_soon(client.hear_all)
        await client.say(CloseConnection(1000))
        await client.over.wait()
        nursery.cancel_scope.cancel(reason="all were sent")
    assert turns > fragments / 100
    assert listener.heard[0]["text"] == "x" * (fragments + 2)


@pytest.mark.slow
@pytest.mark.untraced
async def test_clients_with_very_many_fragments_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, others wait for a part of one of them at a time."""
    turn, collected, at_once = trio.Lock(), 0, []
    collect = websocket_session._Session._collect

    async def count(session: Any, part: Any) -> None:
        nonlocal collected
        collected += 1
        await collect(session, part)

    async def other() -> None:
        while True:
            before = collected
            await trio.lowlevel.checkpoint()
            at_once.append(collected - before)

    monkeypatch.setattr(websocket_session._Session, "_collect", count)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(never_asks, turn=turn)) for _ in range(10)
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(other)
        for client in clients:
            await client.stream.send_all(FIRST_BYTE + ONE_MORE_BYTE * 1000)
        while collected < 10 * 1001:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel(reason="all are read")
    # Each may begin, and then one goes on.
    assert sorted(at_once)[-12] <= 2 * websocket_session._EVENTS_AT_ONCE
    assert sum(n > 2 * websocket_session._EVENTS_AT_ONCE for n in at_once) <= 10


async def test_empty_fragments_are_kept_nowhere(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(never_asks, buffered=False) as client:
        await client.stream.send_all(b"\x01\x80\x00\x00\x00\x00")
        for _ in range(100):
            await client.stream.send_all(b"\x00\x80\x00\x00\x00\x00" * 100)
        await client.say(Ping())
        assert isinstance(await client.hear(), Pong)


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (CloseConnection(1000), 1000, ""),
        (CloseConnection(4000, "my own"), 4000, "my own"),
        (CloseConnection(CloseReason.NO_STATUS_RCVD), 1005, ""),
    ],
)
async def test_the_app_gets_the_client_s_own_code_and_reason(
    said: CloseConnection, code: int, reason: str
) -> None:
    listener = Listener()
    async with connected(listener) as client:
        await client.say(TextMessage("last words"))
        await client.say(said)
        assert await client.hear_close() == (code, reason)
        await client.over.wait()
    assert listener.heard[0]["text"] == "last words"
    assert listener.end == (code, reason)


async def test_a_client_that_is_gone_is_1006() -> None:
    listener = Listener()
    async with connected(listener) as client:
        await client.say(TextMessage("last words"))
    assert listener.heard[0]["text"] == "last words"
    assert listener.end == (1006, "")


async def test_a_client_that_reads_no_more_is_1006() -> None:
    heard: list[Message] = []

    class Deaf(MemoryWire):
        async def send(self, data: bytes) -> None:
            if b"101" not in data:
                raise ClientGone
            await super().send(data)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "hello"})
        heard.append(await receive())
        await send({"type": "websocket.send", "text": "nobody hears it"})

    _, theirs = trio.testing.memory_stream_pair()
    await serve_websocket(
        Deaf(theirs), app, scope_of(), max_message_bytes=MOST, ping_interval_s=None
    )
    assert heard == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # an opcode that there is not
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # compressed
        (ONE_MORE_BYTE, 1002),  # goes on with nothing
        (b"\x89\xfe\x00\x7e", 1002),  # a ping of 126 bytes
        (b"\x81\xff" + b"\xff" * 8, 1002),  # 2**64 - 1 bytes
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),  # not UTF-8
        (b"\x88\x82\x00\x00\x00\x00" + (1006).to_bytes(2, "big"), 1002),  # for private use
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
async def test_what_is_not_valid_ends_it_and_the_app_is_told(said: bytes, code: int) -> None:
    listener = Listener()
    async with connected(listener) as client:
        await client.stream.send_all(said)
        found, _ = await client.hear_close()
        assert found == code
        await client.stream.send_all(b"and more of it")
        await client.over.wait()
    assert listener.end[0] == code


async def test_what_comes_after_that_is_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    receive_data = Connection.receive_data

    def noting(self: Connection, data: bytes | None) -> None:
        if not self.client:
            fed.append(len(data or b""))
        receive_data(self, data)

    monkeypatch.setattr(Connection, "receive_data", noting)
    told = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await receive()
        await told.wait()

    async with connected(app, buffered=False) as client:
        await client.stream.send_all(b"\x83\x80\x00\x00\x00\x00")
        await client.hear()
        for _ in range(10):
            await client.stream.send_all(bytes(60_000))
        told.set()
    assert sum(fed) < 1000


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "oh"), (4000, "ü" * 200)])
async def test_the_app_closes_and_gets_the_client_s_answer(code: int, reason: str) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": code, "reason": reason})
        heard.append(await receive())

    async with connected(app) as client:
        begun = trio.current_time()
        await client.say(TextMessage("on its way by then"))
        assert await client.hear_close() == (code, reason[:61])
        await client.over.wait()
        assert trio.current_time() - begun < websocket_session.CLOSE_S
    assert heard == [{"type": "websocket.disconnect", "code": code, "reason": reason[:61]}]


async def test_a_client_that_does_not_answer_a_close_is_not_waited_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close"})

    async with connected(app) as client:
        await client.over.wait()
        assert trio.current_time() == pytest.approx(websocket_session.CLOSE_S)


@pytest.mark.parametrize("fails", [True, False])
async def test_an_app_that_ends_without_a_close_is_1011(
    fails: bool, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        if fails:
            raise ValueError("a bug")

    async with connected(app) as client:
        assert await client.hear_close() == (1011, "")
        await client.over.wait()
    assert ("a bug" in caplog.text) == fails


@pytest.mark.parametrize("fails", [True, False])
async def test_an_app_that_ends_without_an_answer_is_500(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if fails:
            raise ValueError("a bug")

    async with serving(app) as client:
        status, _, body = await client.refusal()
    assert status == 500
    assert "a bug in the gateway" in json.loads(body)["error"]["message"]
    assert ("ValueError: a bug" in caplog.text) == fails


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "websocket.accept", "subprotocol": "never offered"},
        {"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]},
        {"type": "websocket.send", "text": "not open yet"},
        {"type": "http.response.start", "status": 200},
    ],
)
async def test_an_answer_that_cannot_be_is_the_app_s_bug(
    wrong: Message, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(wrong)

    async with serving(app) as client:
        status, _, _ = await client.refusal()
    assert status == 500
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


async def test_a_cancelled_session_leaves_nothing_behind_and_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ended = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            await receive()
        finally:
            ended.set()

    with trio.move_on_after(5) as scope:
        await serve_websocket(
            MemoryWire(theirs), app, scope_of(), max_message_bytes=MOST, ping_interval_s=1
        )
    assert scope.cancelled_caught
    assert ended.is_set()
    await theirs.aclose()
    heard = b""
    while piece := await ours.receive_some(65536):
        heard += piece
    assert heard.startswith(b"HTTP/1.1 101 ")
    assert b"\x88" not in heard


async def test_after_a_frame_that_went_out_in_part_nothing_is_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        with trio.move_on_after(1):
            await send({"type": "websocket.send", "bytes": bytes(1000)})
        await send({"type": "websocket.close"})

    async with serving(app, buffered=False) as client:
        assert isinstance(await client.hear(), AcceptConnection)
        await trio.sleep(2)
        await client.over.wait()
        assert trio.current_time() < 2 + websocket_session.CLOSE_S
