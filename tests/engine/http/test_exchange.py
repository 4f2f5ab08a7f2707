"""One request to an engine over a real socket, with servers that answer in every way."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.sockets import (
    HOST,
    OK,
    Handler,
    begun,
    chunked,
    read_request,
    serving,
    whole_body,
)
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineTalksGarbage,
    EngineUnreachable,
    ExchangeAborted,
    OutOfSockets,
)
from trio_gateway.engine.http.exchange import Exchange

Ask = Callable[..., Awaitable[Exchange]]


def answering(*pieces: bytes) -> Handler:
    """Reads a request, sends the pieces, closes."""

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        for piece in pieces:
            await stream.send_all(piece)

    return handle


async def ask(port: int, body: bytes = b"{}") -> Exchange:
    return await begun(port, body)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


# -- answers that are well --------------------------------------------------------------------


async def test_the_request_is_sent_as_given() -> None:
    seen: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(OK + b"Content-Length: 0\r\n\r\n")

    async with serving(handle) as port:
        assert await whole_body(await ask(port, b'{"a":1}')) == b""
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/x HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: 127.0.0.1:%d" % port,
        b"Accept: */*",
        b"Content-Length: 7",
    }
    assert body == b'{"a":1}'


async def test_an_answer_with_a_length_is_read_to_its_end() -> None:
    answer = b"HTTP/1.1 201 Made\r\nContent-Length: 10\r\nX-Two: 2\r\n\r\n"
    async with serving(answering(answer, b"01234", b"56789")) as port:
        exchange = await ask(port)
        assert exchange.status == 201
        assert exchange.headers == [(b"content-length", b"10"), (b"x-two", b"2")]
        assert await whole_body(exchange) == b"0123456789"
        assert exchange.complete


@pytest.mark.parametrize(
    "pieces",
    [
        (CONTINUE + EARLY_HINTS + OK + b"Content-Length: 2\r\n\r\nok",),
        (CONTINUE, EARLY_HINTS[:30], EARLY_HINTS[30:], OK + b"Content-Length: 2\r\n\r\n", b"ok"),
        (EARLY_HINTS, CHUNKED, chunked(b"ok", b"")),
        (b"HTTP/1.1 102 Processing\r\nContent-Length: 0\r\n\r\n", OK + b"\r\n", b"ok"),
    ],
)
async def test_what_comes_before_the_answer_is_not_taken_for_it(pieces: tuple[bytes, ...]) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.01)  # so that each is a read of its own

    async with serving(handle) as port:
        exchange = await ask(port)
        assert exchange.status == 200
        assert b"link" not in dict(exchange.headers)
        assert await whole_body(exchange) == b"ok"


async def test_an_engine_that_says_only_continue_has_not_answered() -> None:
    async with serving(answering(CONTINUE)) as port:
        with pytest.raises(EngineDisconnected):
            await ask(port)


async def test_of_an_answer_so_much_is_waited_for_as_is_wanted() -> None:
    hold = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED + chunked(b"one", b"two"))
        await hold.wait()
        await stream.send_all(chunked(b"three", b""))

    async with serving(handle) as port:
        with trio.fail_after(10):
            exchange = await ask(port)
            await exchange.prefetch(5)
            assert await exchange.receive() == b"onetwo"
            hold.set()
            await exchange.prefetch(100)
            assert exchange.complete
            assert await whole_body(exchange) == b"three"


async def test_an_answer_in_chunks_is_read_to_its_end_though_the_connection_stays_open() -> None:
    hold = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED + chunked(b"one", b"two", b""))
        await hold.wait()

    async with serving(handle) as port:
        with trio.fail_after(10):
            assert await whole_body(await ask(port)) == b"onetwo"


async def test_chunks_that_one_read_gave_are_one_piece() -> None:
    async with serving(answering(CHUNKED + chunked(b"a", b"b", b"c", b""))) as port:
        exchange = await ask(port)
        assert await exchange.receive() == b"abc"
        assert await exchange.receive() == b""
        exchange.close()


async def test_a_chunk_is_passed_on_before_the_next_one_comes() -> None:
    more = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED + chunked(b"first"))
        await more.wait()
        await stream.send_all(chunked(b"second", b""))

    async with serving(handle) as port:
        exchange = await ask(port)
        assert await exchange.receive() == b"first"
        more.set()
        assert await whole_body(exchange) == b"second"


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with serving(answering(OK + b"\r\n", b"all ", b"of it")) as port:
        exchange = await ask(port)
        assert await whole_body(exchange) == b"all of it"
        assert exchange.complete


async def test_an_answer_without_a_body_is_complete_at_once() -> None:
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as port:
        exchange = await ask(port)
        assert (exchange.status, await whole_body(exchange)) == (204, b"")


@pytest.mark.parametrize("frame", ["length", "chunks"])
async def test_large_bodies_pass_both_ways(frame: str) -> None:
    big = bytes(range(256)) * 16 * 1024

    async def handle(stream: trio.SocketStream) -> None:
        request = await read_request(stream)
        echo = request.partition(b"\r\n\r\n")[2]
        if frame == "length":
            await stream.send_all(OK + b"Content-Length: %d\r\n\r\n" % len(echo) + echo)
        else:
            await stream.send_all(CHUNKED + chunked(echo, b""))

    async with serving(handle) as port:
        assert await whole_body(await ask(port, big)) == big


async def test_an_answer_that_comes_before_the_request_is_read_is_still_seen() -> None:
    """A 413, say: the engine answers and closes while we still send."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await stream.send_eof()

    async with serving(handle) as port:
        exchange = await ask(port, b"x" * 32 * 1024 * 1024)
        assert exchange.status == 413
        assert await whole_body(exchange) == b"big"


# -- answers that are not ---------------------------------------------------------------------


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        with pytest.raises(EngineUnreachable, match=f"127.0.0.1:{port}"):
            await ask(port)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le"],
    ids=["before the answer", "in the head"],
)
async def test_a_connection_that_ends_before_the_head_is_a_disconnect(answer: bytes) -> None:
    async with serving(answering(answer)) as port:
        with pytest.raises(EngineDisconnected):
            await ask(port)


@pytest.mark.parametrize(
    "answer",
    [OK + b"Content-Length: 10\r\n\r\n01234", CHUNKED + chunked(b"01234"), CHUNKED + b"9\r\n01234"],
    ids=["short of the length", "no last chunk", "in a chunk"],
)
async def test_a_connection_that_ends_in_mid_answer_is_a_disconnect(answer: bytes) -> None:
    async with serving(answering(answer)) as port:
        exchange = await ask(port)
        with pytest.raises(EngineDisconnected, match="in the middle"):
            await whole_body(exchange)
        assert not exchange.complete


async def test_a_connection_that_is_reset_is_a_disconnect() -> None:
    received = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED + chunked(b"01234"))
        await received.wait()
        at_once = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    async with serving(handle) as port:
        exchange = await ask(port)
        assert await exchange.receive() == b"01234"
        received.set()
        with pytest.raises(EngineDisconnected, match="broke"):
            await exchange.receive()
        exchange.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\x01\x02\x03",
        OK + b"Content-Length: many\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=["ssh", "bytes", "length", "upgrade"],
)
async def test_an_answer_that_is_not_http_is_garbage(answer: bytes) -> None:
    async with serving(answering(answer)) as port:
        with pytest.raises(EngineTalksGarbage):
            await ask(port)


LINE = b"x" * 60_000


@pytest.mark.parametrize(
    "pieces",
    [
        (OK, b"X: ", *[LINE] * 400),
        (OK, b"X" * 60_000, *[LINE] * 400),
        (b"HTTP/1.1 200 ", *[LINE] * 400),
        (OK, *[b"X: y\r\n" * 5000] * 400),
        (OK, b"X: y\r\n" * 400, b"Content-Length: 0\r\n\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 20_000,),
        (CHUNKED, b"5\r\nhello\r\n0\r\n", *[b"X: y\r\n" * 5000] * 400),
        (CHUNKED, b"5\r\nhello\r\n0\r\nX: ", *[LINE] * 400),
        (CHUNKED, b"5;", *[LINE] * 400),
    ],
    ids=[
        "a long value", "a long name", "a long reason", "many", "more than 256", "early hints",
        "trailers", "a long trailer", "a long extension",
    ],
)  # fmt: skip
async def test_the_head_of_an_answer_is_limited(pieces: tuple[bytes, ...]) -> None:
    began = time.process_time()
    async with serving(answering(*pieces)) as port:
        opened: list[Exchange] = []
        with pytest.raises(EngineTalksGarbage, match="headers"):  # noqa: PT012 - in either
            exchange = await begun(port, b"{}", opened)
            while not exchange.complete:
                await exchange.receive()
        opened[0].close()
    assert time.process_time() - began < 0.5


async def test_a_trailer_is_not_a_header() -> None:
    trailer = b"5\r\nhello\r\n0\r\nKeep-Alive: timeout=1\r\nX: y\r\n\r\n"
    async with serving(answering(CHUNKED, trailer)) as port:
        exchange = await ask(port)
        assert await exchange.receive() == b"hello"
        assert await exchange.receive() == b""
        assert b"x" not in dict(exchange.headers)
        assert exchange.keep_alive == b""
        exchange.close()


async def test_a_chunk_that_is_not_one_is_garbage() -> None:
    async with serving(answering(CHUNKED + chunked(b"good"), b"no size\r\n")) as port:
        with pytest.raises(EngineTalksGarbage):
            await whole_body(await ask(port))


# -- ended by us ------------------------------------------------------------------------------


class Silent:
    """A server that reads, answers `head` and then waits; `gone` once the client went away."""

    def __init__(self, head: bytes = b"", *, reads: bool = True) -> None:
        self._head, self._reads = head, reads
        self.connected, self.asked, self.gone = trio.Event(), trio.Event(), trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.connected.set()
        if not self._reads:
            await trio.sleep_forever()
        await read_request(stream)
        if self._head:
            await stream.send_all(self._head)
        self.asked.set()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        self.gone.set()


async def test_an_exchange_that_is_aborted_raises_what_it_was_aborted_with() -> None:
    server = Silent(CHUNKED)
    async with serving(server) as port:
        exchange = await ask(port)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait_for_more() -> None:
                with pytest.raises(ExchangeAborted, match="enough"):
                    await exchange.receive()

            await trio.testing.wait_all_tasks_blocked()
            exchange.abort(ExchangeAborted("enough"))
        with trio.fail_after(10):
            await server.gone.wait()


@pytest.mark.parametrize("reads", [True, False], ids=["it waits for the head", "it still sends"])
async def test_an_exchange_can_be_aborted_before_the_engine_answered(reads: bool) -> None:
    server = Silent(reads=reads)
    opened: list[Exchange] = []
    async with serving(server) as port, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def request() -> None:
            with pytest.raises(ExchangeAborted, match="enough"):
                await begun(port, b"x" * 32 * 1024**2, opened)

        await (server.asked if reads else server.connected).wait()
        await trio.testing.wait_all_tasks_blocked()
        opened[0].abort(ExchangeAborted("enough"))


@pytest.mark.parametrize("head", [b"", CHUNKED], ids=["before the head", "in the body"])
async def test_cancelling_a_request_closes_its_connection(head: bytes) -> None:
    server = Silent(head)
    async with serving(server) as port, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def request() -> None:
            client = LlamaCppEngine(f"http://{HOST}:{port}")
            try:
                async with client.forward_request("POST", "/", [], b"{}") as exchange:
                    await exchange.receive()
            finally:
                with trio.CancelScope(shield=True):
                    await client.aclose()

        await server.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="the client went away")
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await server.gone.wait()


# -- EngineClient -----------------------------------------------------------------------------


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[LlamaCppEngine]:
    client = LlamaCppEngine(f"http://{HOST}:{port}")
    try:
        yield client
    finally:
        await client.aclose()


async def test_forwarding_gives_the_answer_and_closes_the_connection_after_the_block() -> None:
    server = Silent(CHUNKED + chunked(b"one"))
    async with serving(server) as port, client_of(port) as client:
        async with client.forward_request("POST", "/", [], b"{}") as exchange:
            assert (exchange.status, await exchange.receive()) == (200, b"one")
            assert not server.gone.is_set()
        with trio.fail_after(10):
            await server.gone.wait()


async def test_an_error_in_the_block_closes_the_connection_too() -> None:
    server = Silent(CHUNKED)
    async with serving(server) as port, client_of(port) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.forward_request("POST", "/", [], b"{}"):
                raise ZeroDivisionError
        with trio.fail_after(10):
            await server.gone.wait()


async def test_all_requests_of_an_engine_can_be_ended_at_once() -> None:
    ended = []

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED)
        await trio.sleep_forever()

    async with serving(handle) as port, client_of(port) as client:
        async with trio.open_nursery() as nursery:

            async def request() -> None:
                with pytest.raises(EngineDisconnected, match="it crashed"):
                    async with client.forward_request("POST", "/", [], b"{}") as exchange:
                        await exchange.receive()
                ended.append(1)

            for _ in range(3):
                nursery.start_soon(request)
            while len(client.connections) < 3:
                await trio.testing.wait_all_tasks_blocked()
            client.abort_all(EngineDisconnected("it crashed"))
        assert len(ended) == 3
        client.abort_all(EngineDisconnected("nobody is there"))


# -- what the client notes of its engine ------------------------------------------------------


async def post(client: LlamaCppEngine) -> bytes:
    body = bytes(bytearray(b"{}"))  # an object of its own, as each request's is
    async with client.forward_request("POST", "/", [], body) as exchange:
        return await exchange.receive()


async def lose(client: LlamaCppEngine, error: type[Exception]) -> None:
    with pytest.raises(error):
        await post(client)


async def test_every_read_of_an_answer_is_a_beat_of_the_pulse() -> None:
    go_on = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(CHUNKED)
        await go_on.wait()
        await stream.send_all(chunked(b"one", b""))

    async with (
        serving(handle) as port,
        client_of(port) as client,
        client.forward_request("POST", "/", [], b"{}") as exchange,
    ):
        with_head = client.pulse.beats
        assert with_head >= 1
        go_on.set()
        await exchange.receive()
        assert client.pulse.beats > with_head


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", EngineDisconnected), (b"SSH-2.0-OpenSSH\r\n", EngineTalksGarbage)],
    ids=["closes", "talks garbage"],
)
async def test_an_engine_refuses_when_it_answers_neither_of_two_requests(
    answer: bytes, error: type[Exception]
) -> None:
    async with serving(answering(answer)) as port, client_of(port) as client:
        await lose(client, error)
        assert not client.refuses.is_set()
        await lose(client, error)
        assert client.refuses.is_set()
        assert client.last_refusal


async def test_two_tries_of_one_request_are_one_refusal() -> None:
    body = b'{"poison": true}'
    async with serving(answering(b"")) as port, client_of(port) as client:
        for _ in range(3):
            with pytest.raises(EngineDisconnected):
                async with client.forward_request("POST", "/", [], body):
                    pass
        assert not client.refuses.is_set()


async def test_an_engine_in_the_middle_of_an_answer_does_not_refuse() -> None:
    answers = iter([OK + b"Content-Length: 9\r\n\r\n1", b"", b""])

    async def handle(stream: trio.SocketStream) -> None:
        if answer := next(answers):
            await read_request(stream)
            await stream.send_all(answer)
            await trio.sleep_forever()
        await answering(b"")(stream)

    async with (
        serving(handle) as port,
        client_of(port) as client,
        client.forward_request("POST", "/", [], b"a long one") as running,
    ):
        assert await running.receive() == b"1"
        for _ in range(2):
            await lose(client, EngineDisconnected)
        assert not client.refuses.is_set()


async def test_so_does_one_that_listens_no_more() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        async with client_of(taken.getsockname()[1]) as client:
            for _ in range(2):
                await lose(client, EngineUnreachable)
            assert client.refuses.is_set()


async def test_an_answer_that_breaks_off_is_no_refusal_and_forgives_one() -> None:
    answers = iter([b"", OK + b"Content-Length: 9\r\n\r\n", b"", OK + b"Content-Length: 9\r\n\r\n"])

    async def handle(stream: trio.SocketStream) -> None:
        await answering(next(answers))(stream)

    async with serving(handle) as port, client_of(port) as client:
        for _ in range(4):
            await lose(client, EngineDisconnected)
        assert not client.refuses.is_set()


async def test_asking_for_its_health_neither_counts_nor_forgives() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        if b"/health" in await read_request(stream):
            await stream.send_all(OK + b"Content-Length: 0\r\n\r\n")

    async with serving(handle) as port, client_of(port) as client:
        await lose(client, EngineDisconnected)
        assert (await client.check_health(10)).ok
        await lose(client, EngineDisconnected)
        assert client.refuses.is_set()


async def test_what_the_gateway_ended_itself_is_no_refusal() -> None:
    server = Silent()
    async with serving(server) as port, client_of(port) as client:
        for _ in range(2):
            with trio.move_on_after(0.05):
                await post(client)
        client.abort_all(EngineDisconnected("it is stopped"))
        for _ in range(2):
            await lose(client, EngineDisconnected)
        assert not client.refuses.is_set()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL])
async def test_having_no_socket_left_is_not_the_engine_s_refusal(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(number, "no more")

    async with client_of(1) as client:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", exhausted)
            for _ in range(2):
                with pytest.raises(OutOfSockets, match="the gateway cannot open a socket"):
                    await post(client)
            health = await client.check_health(10)
        assert not client.refuses.is_set()
        assert (health.ok, health.silent) == (False, False)


def test_headers_of_the_connection_and_of_the_engines_server_are_not_passed_on() -> None:
    client = LlamaCppEngine(f"http://{HOST}:1")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"server", b"llama.cpp"),
        (b"access-control-allow-origin", b"*"),
        (b"access-control-max-age", b"600"),
        (b"access-control-allow-private-network", b"true"),
        (b"clear-site-data", b'"*"'),
        (b"service-worker-allowed", b"/"),
        (b"x-accel-redirect", b"/etc/"),
        (b"refresh", b"0; url=https://evil.example"),
        (b"alt-svc", b'h2="evil.example:443"'),
        (b"link", b"<https://evil.example>; rel=preload"),
        (b"x-gateway-variant", b"theirs"),
        (b"x-own", b"1"),
    ]
    passed = client.transform_response(headers)
    assert [name for name, _ in passed] == [b"content-type", b"content-length", b"x-own"]
    assert client.transform_request("completions", b"{}") == b"{}"


async def test_an_ipv6_address_has_brackets_in_the_host_header() -> None:
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    seen: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            seen.append(await read_request(stream))
            await stream.send_all(OK + b"Content-Length: 0\r\n\r\n")

    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        async with client_of(port):
            (await begun(port, b"", host="::1")).close()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert b"Host: [::1]:%d\r\n" % port in seen[0]
