"""Connections to an engine that serve again, over real sockets, with servers that end them at
every bad moment."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, Clock, chat
from tests.support.cancelling import cancel_at_each_step
from tests.support.fakes import FakeProcess
from tests.support.schema_values import config, model
from tests.support.sockets import HOST, OK, chunked, read_request, serving
from tests.support.stack import running_stack
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineTalksGarbage,
    ExchangeAborted,
    OutOfSockets,
)
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.connections import TOLD_WITHIN_S
from trio_gateway.engine.http.idle import KEEP_MAX_S, KEPT_MAX, KeepAlive, parse_keep_alive
from trio_gateway.engine.http.opener import AddressOpener
from trio_gateway.engine.http.transport import PlainTransport
from trio_gateway.engine.process.process import StopReport

ANSWER = OK + b"Content-Length: 2\r\n\r\nok"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
Act = Callable[[trio.SocketStream], Awaitable[None]]


def say(data: bytes) -> Act:
    async def act(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return act


class Server:
    """Answers each request with the next of its acts, and then with `ANSWER`.

    `requests`: for each connection, those that it got on it. `ended`: those of them that the client
    has closed.
    """

    def __init__(self, *acts: Act | bytes) -> None:
        self.acts = [say(act) if isinstance(act, bytes) else act for act in acts]
        self.requests: list[list[bytes]] = []
        self.ended: set[int] = set()
        self.streams: list[trio.SocketStream] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        number = len(self.requests)
        self.requests.append([])
        self.streams.append(stream)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while first := await stream.receive_some(1):
                self.requests[number].append(first + await read_request(stream))
                act = self.acts.pop(0) if self.acts else say(ANSWER)
                await act(stream)
        self.ended.add(number)

    @property
    def counts(self) -> list[int]:
        """How many requests each connection had."""
        return [*map(len, self.requests)]


async def close(stream: trio.SocketStream) -> None:
    await stream.aclose()


def then(*acts: Act) -> Act:
    async def act(stream: trio.SocketStream) -> None:
        for each in acts:
            await each(stream)

    return act


async def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


@asynccontextmanager
async def engine(server: Server, most: int = KEPT_MAX) -> AsyncIterator[LlamaCppEngine]:
    async with serving(server) as port:
        client = LlamaCppEngine(f"http://{HOST}:{port}")
        client.idle.most = most
        try:
            yield client
            await client.aclose()
            assert not len(client.idle)
            with trio.fail_after(10):
                while len(server.ended) < len(server.requests):
                    await trio.testing.wait_all_tasks_blocked(0.01)
        finally:
            await client.aclose()


async def post(client: EngineClient, body: bytes | BodySource = b"{}") -> bytes:
    pieces = []
    with trio.fail_after(10):
        async with client.forward_request("POST", "/x", [], body) as exchange:
            while piece := await exchange.receive():
                pieces.append(piece)
    return b"".join(pieces)


async def settle() -> None:
    """Until what is under way in the other task has happened."""
    await trio.testing.wait_all_tasks_blocked(0.01)


# -- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + chunked(b"a", b"b", b""),
        b"HTTP/1.1 204 So\r\n\r\n",
        b"HTTP/1.1 500 So\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
        OK + b"Keep-Alive: timeout=5, max=100\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_whose_answer_was_read_to_its_end_serves_again(answer: bytes) -> None:
    server = Server(answer, answer)
    async with engine(server) as client:
        assert await post(client) == await post(client)
        assert server.counts == [2]


async def test_requests_and_questions_share_what_is_kept() -> None:
    server = Server()
    async with engine(server) as client:
        for _ in range(2):
            await post(client)
            assert (await client.check_health(10)).ok
        assert server.counts == [4]


async def test_an_answer_that_is_complete_needs_not_be_looked_at() -> None:
    server = Server()
    async with engine(server) as client:
        for _ in range(2):
            async with client.forward_request("POST", "/x", [], b"{}") as exchange:
                assert exchange.complete
        assert server.counts == [2]


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        ANSWER + b"more",
        ANSWER + ANSWER,
        CHUNKED + chunked(b"ok", b"") + b"more",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok" + ANSWER,
        OK + b"Keep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Keep-Alive: timeout=5, max=1\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_one_that_its_server_does_not_keep_or_that_says_too_much_is_closed(
    answer: bytes,
) -> None:
    server = Server(answer)
    async with engine(server) as client:
        assert await post(client) == b"ok"
        assert not len(client.idle)
        await post(client)
        assert server.counts == [1, 1]


async def test_an_answer_that_ends_with_its_connection_is_read_and_the_next_gets_another() -> None:
    server = Server(then(say(OK + b"\r\nok"), close))
    async with engine(server) as client:
        assert [await post(client), await post(client)] == [b"ok", b"ok"]
        assert server.counts == [1, 1]


async def test_an_answer_that_is_not_read_to_its_end_closes_its_connection() -> None:
    server = Server(CHUNKED + chunked(b"one"))
    async with engine(server) as client:
        async with client.forward_request("POST", "/x", [], b"{}") as exchange:
            assert await exchange.receive() == b"one"
        with trio.fail_after(10):
            while 0 not in server.ended:
                await settle()
        await post(client)
        assert server.counts == [1, 1]


async def test_an_answer_that_is_over_does_not_close_what_others_use() -> None:
    server = Server()
    async with engine(server) as client:
        async with client.forward_request("POST", "/x", [], b"{}") as over:
            pass
        async with client.forward_request("POST", "/x", [], b"{}") as exchange:
            over.close()
            assert exchange.transport is over.transport
            exchange.close()
        assert not len(client.idle)
        assert await post(client) == b"ok"
        assert server.counts == [2, 1]


async def test_an_upload_that_was_refused_half_way_closes_its_connection() -> None:
    class Endless(BodySource):
        length, request, can_repeat, is_begun, is_complete = None, object(), False, True, False

        def rewind(self) -> None:
            raise AssertionError

        async def receive(self) -> bytes:
            if self.first:
                self.first = False
                return b"x"
            await trio.sleep_forever()
            raise AssertionError

        first = True

    server = Server(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig")
    async with engine(server) as client:
        assert await post(client, Endless()) == b"big"
        assert not len(client.idle)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"timeout=5, max=100", KeepAlive(5.0, 100)),
        (b"Timeout=5,MAX=100", KeepAlive(5.0, 100)),
        (b"max=7", KeepAlive(requests_max=7)),
        (b"timeout=x, max=-1, a=b, ,=", KeepAlive()),
        (b"timeout=99999999999999999999", KeepAlive()),
        ("timeout=٣".encode(), KeepAlive()),
        (b"", KeepAlive()),
    ],
)
def test_what_a_server_says_of_how_long_it_keeps_one(said: bytes, meant: KeepAlive) -> None:
    assert parse_keep_alive(said) == meant


@pytest.mark.parametrize("keep_s", [5, 30, None, 3600])
async def test_one_is_kept_for_less_time_than_its_server_keeps_it(
    mock_clock: trio.testing.MockClock, keep_s: int | None
) -> None:
    said = b"" if keep_s is None else b"Keep-Alive: timeout=%d\r\n" % keep_s
    server = Server(*[OK + said + b"Content-Length: 2\r\n\r\nok"] * 3)
    kept_s = min((AddressOpener.keep_s if keep_s is None else keep_s) - 1, KEEP_MAX_S)
    async with engine(server) as client:
        await post(client)
        mock_clock.jump(kept_s - 0.1)
        await post(client)
        assert server.counts == [2]
        mock_clock.jump(kept_s + 0.1)
        await post(client)
        assert server.counts == [2, 1]


async def test_those_that_are_too_old_are_closed_with_the_next_health_check(
    mock_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    async with engine(server) as client:
        async with client.forward_request("POST", "/x", [], b"{}"):
            await post(client)
        assert len(client.idle) == 2
        mock_clock.jump(KEEP_MAX_S)
        assert (await client.check_health(10)).ok
        assert server.counts == [1, 1, 1]
        assert len(client.idle) == 1


async def test_a_server_that_takes_few_requests_on_a_connection_gets_no_more() -> None:
    answer = OK + b"Keep-Alive: timeout=5, max=2\r\nContent-Length: 2\r\n\r\nok"
    server = Server(*[answer] * 5)
    async with engine(server) as client:
        for _ in range(5):
            assert await post(client) == b"ok"
        assert server.counts == [2, 2, 1]


async def at_once(client: EngineClient, count: int) -> None:
    """Requests of which each is begun before any is over."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(client.forward_request("POST", "/x", [], b"{}"))


async def test_no_more_are_kept_than_the_engine_has_slots_those_in_use_included() -> None:
    server = Server()
    async with engine(server, most=3) as client:
        await at_once(client, 5)
        assert len(client.idle) == 3
        async with client.forward_request("POST", "/x", [], b"{}"):
            await at_once(client, 4)
            assert len(client.idle) == 2
        assert len(client.idle) == 3


async def test_the_one_that_was_used_last_serves_first() -> None:
    server = Server()
    async with engine(server) as client:
        await at_once(client, 3)
        for _ in range(3):
            await post(client)
        assert server.counts == [4, 1, 1]


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (4, 4), (64, KEPT_MAX)])
async def test_an_engine_s_slots_say_how_many(slots: int, most: int) -> None:
    props = b'{"total_slots": %d}' % slots
    answer = OK + b"Content-Length: %d\r\n\r\n%b" % (len(props), props)
    async with serving(Server(answer)) as port:
        client = LlamaCppEngine(f"http://{HOST}:{port}")
        assert client.idle.most == 1  # of one that loads, only its health is asked
        await client.read_facts(10)
        assert client.idle.most == most
        await client.aclose()


# -- what ends while it is idle, or as it is used -----------------------------------------------


@pytest.mark.parametrize("end", [close, reset, say(b"HTTP/1.1 408 So\r\n\r\n"), say(b"\n")])
async def test_one_that_ends_or_speaks_while_it_is_idle_is_not_used(end: Act) -> None:
    server = Server()
    async with engine(server) as client:
        await post(client)
        await settle()
        await end(server.streams[0])
        await settle()
        assert await post(client) == b"ok"
        assert server.counts == [1, 1]


async def test_one_that_is_closed_right_after_the_answer_costs_nothing() -> None:
    server = Server(*[then(say(ANSWER), close)] * 10)
    async with engine(server) as client:
        for _ in range(10):
            assert await post(client) == b"ok"
        assert server.counts == [1] * 10


async def broken_off(stream: trio.SocketStream) -> None:
    await stream.send_eof()


@pytest.mark.parametrize("end", [close, reset, broken_off])
async def test_a_request_that_gets_nothing_over_a_kept_one_is_sent_again_over_a_fresh_one(
    end: Act,
) -> None:
    server = Server(ANSWER, end)
    async with engine(server) as client:
        await post(client, b"first")
        assert await post(client, b"second") == b"ok"
        assert server.counts == [2, 1]
        assert server.requests[0][1] == server.requests[1][0]
        assert client._refusals == 0


@pytest.mark.parametrize("end", [close, reset, broken_off])
async def test_it_is_sent_again_once(end: Act) -> None:
    server = Server(ANSWER, end, end, end, end)
    async with engine(server) as client:
        await post(client, b"first")
        with pytest.raises(EngineDisconnected):
            await post(client, b"second")
        assert server.counts == [2, 1]
        assert client._refusals == 1
        with pytest.raises(EngineDisconnected):
            await post(client, b"third")
        assert client.refuses.is_set()


async def test_it_is_not_sent_again_if_the_engine_had_time_to_work_on_it(
    mock_clock: trio.testing.MockClock,
) -> None:
    async def work_and_close(stream: trio.SocketStream) -> None:
        mock_clock.jump(TOLD_WITHIN_S + 0.1)
        await stream.aclose()

    server = Server(ANSWER, work_and_close)
    async with engine(server) as client:
        await post(client)
        with pytest.raises(EngineDisconnected):
            await post(client)
        assert server.counts == [2]


async def test_the_others_are_closed_with_it() -> None:
    """A second try of the same request would come to its end over one of them as well."""
    server = Server(ANSWER, ANSWER, ANSWER, close, close)
    async with engine(server) as client:
        await at_once(client, 3)
        with pytest.raises(EngineDisconnected):
            await post(client)
        assert not len(client.idle)
        assert sorted(server.counts) == [1, 1, 1, 2]


async def test_all_that_are_kept_may_have_ended() -> None:
    server = Server()
    async with engine(server) as client:
        await at_once(client, 3)
        for stream in server.streams:
            await stream.aclose()
        assert await post(client) == b"ok"
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (OK[:5], EngineDisconnected),
        (OK + b"Content-Length: 2\r\n", EngineDisconnected),
        (b"SSH-2.0-OpenSSH\r\n", EngineTalksGarbage),
    ],
)
async def test_a_request_whose_answer_had_begun_is_not_sent_again(
    said: bytes, error: type[Exception]
) -> None:
    server = Server(ANSWER, then(say(said), close))
    async with engine(server) as client:
        await post(client)
        with pytest.raises(error):
            await post(client)
        assert server.counts == [2]


async def test_a_question_is_sent_again_as_well() -> None:
    server = Server(ANSWER, close)
    async with engine(server) as client:
        await post(client)
        assert (await client.check_health(10)).ok
        assert server.counts == [2, 1]


class Once(BodySource):
    request, can_repeat, is_begun, is_complete = object(), False, False, False

    def __init__(self, length: int | None, *pieces: bytes) -> None:
        self.length, self.pieces = length, [*pieces]

    def rewind(self) -> None:
        raise AssertionError

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""


async def test_a_body_in_pieces_gets_a_fresh_connection() -> None:
    server = Server()
    async with engine(server) as client:
        await post(client)
        assert await post(client, Once(2, b"{", b"}")) == b"ok"
        assert server.counts == [1, 1]
        assert len(client.idle) == 2


async def test_a_body_that_is_longer_than_was_said_closes_its_connection() -> None:
    """The engine takes the rest of it for another request."""
    server = Server()
    async with engine(server) as client:
        assert await post(client, Once(2, b"{}", b"POST /y HTTP/1.1\r\n\r\n")) == b"ok"
        assert not len(client.idle)


async def test_what_the_gateway_ends_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trio.Event()

    async def connect(_: AddressOpener) -> None:
        raise AssertionError

    async def hang(stream: trio.SocketStream) -> None:
        asked.set()
        await stream.receive_some()

    server = Server(ANSWER, hang)
    async with engine(server) as client:
        await post(client)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def request() -> None:
                with pytest.raises(EngineDisconnected, match="it crashed"):
                    await post(client)

            await asked.wait()
            monkeypatch.setattr(AddressOpener, "connect", connect)
            client.abort_all(EngineDisconnected("it crashed"))
        assert server.counts == [2]


async def test_without_a_socket_for_the_fresh_one_nothing_is_said_of_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(_: AddressOpener) -> None:
        raise OutOfSockets

    server = Server(ANSWER, close)
    async with engine(server) as client:
        await post(client)
        monkeypatch.setattr(AddressOpener, "connect", connect)
        with pytest.raises(OutOfSockets):
            await post(client)
        assert client._refusals == 0


# -- what is left -------------------------------------------------------------------------------


async def test_ending_all_closes_what_is_idle_and_what_comes_back_later() -> None:
    server = Server()
    async with engine(server) as client:
        await at_once(client, 2)
        async with client.forward_request("POST", "/x", [], b"{}") as exchange:
            client.abort_requests(ExchangeAborted("it is stopped"))
            assert not len(client.idle)
            assert exchange.complete
        assert not len(client.idle)
        assert (await client.check_health(10)).ok  # as a slot may still be saved
        with pytest.raises(ExchangeAborted):
            await post(client)
        assert len(client.idle) == 1  # that one was not taken, and lost
        client.abort_all(EngineDisconnected("it is gone"))
        assert not len(client.idle)
        with pytest.raises(EngineDisconnected):
            await post(client)


async def hesitate(stream: trio.SocketStream) -> None:
    for piece in (CHUNKED[:9], CHUNKED[9:], chunked(b"one"), chunked(b"two", b"")):
        await trio.lowlevel.checkpoint()
        await stream.send_all(piece)


@pytest.mark.parametrize("ends", [False, True], ids=["it serves", "it has ended"])
@pytest.mark.parametrize("kept", [0, 1], ids=["over a fresh one", "over a kept one"])
async def test_of_a_cancelled_request_nothing_is_left(kept: int, ends: bool) -> None:
    server = Server()
    async with engine(server, most=kept) as client:

        async def work() -> None:
            with trio.CancelScope(shield=True):
                server.acts = []
                await post(client)
            server.acts = [close, hesitate] if kept and ends else [hesitate]
            assert await post(client) == b"onetwo"

        def check(step: int) -> None:
            assert not len(client.connections), step
            assert len(server.requests) - len(server.ended) == len(client.idle) <= kept, step

        assert await cancel_at_each_step(work, check) > 5


async def test_a_cancelled_request_over_a_kept_connection_closes_it() -> None:
    asked = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        asked.set()

    server = Server(ANSWER, hang)
    async with engine(server) as client:
        await post(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, client)
            await asked.wait()
            nursery.cancel_scope.cancel(reason="the client is gone")
        with trio.fail_after(10):
            while 0 not in server.ended:
                await settle()
        assert not len(client.idle)


async def test_an_engine_that_is_told_to_stop_has_no_idle_connection_left(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers wait for the end of those that are open."""
    idle: list[int] = []
    stop = FakeProcess.stop

    async def note(process: FakeProcess, timeout_s: float) -> StopReport:
        idle.append(len(first.idle))
        return await stop(process, timeout_s)

    monkeypatch.setattr(FakeProcess, "stop", note)
    async with running_stack(config(model("m"), model("n"))) as stack:
        await stack.post(CHAT, chat("m"))
        (first,) = [engine.client for engine in stack.manager.overview._engines.values()]
        ours, engines = socket.socketpair()
        first.idle.keep(PlainTransport(ours), first._opener, KeepAlive(60.0), trio.current_time())
        assert len(first.idle) == 1
        await stack.post(CHAT, chat("n"))
        assert idle == [0]
        engines.close()


async def test_a_look_at_an_engine_is_no_work_after_which_its_slots_would_hold_something_new() -> (
    None
):
    async with engine(Server()) as client:
        connections = client.connections
        before = connections.quiet_since

        async def ask(method: str) -> float | None:
            async with client.forward_request(method, "/slots", (), b"") as exchange:
                under_way = connections.quiet_since
                while not exchange.complete:
                    await exchange.receive()
            return under_way

        assert await ask("GET") == before == connections.quiet_since
        assert await ask("POST") is None
        quiet_since = connections.quiet_since
        assert quiet_since is not None
        assert before is not None
        assert quiet_since > before
        await ask("GET")
        assert connections.quiet_since == quiet_since
