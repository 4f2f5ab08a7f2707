"""Bodies that go to an engine in pieces, over real sockets, with all sorts of engines."""

from __future__ import annotations

import contextlib

import pytest
import trio

from tests.support.sockets import HOST, OK, begun, read_request, serving, whole_body
from trio_gateway.engine.clients.client import REFUSALS_MAX, EngineClient
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.errors import EngineDisconnected, EngineUnreachable, ExchangeAborted
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange

MEGABYTE = b"x" * 1_000_000


class Pieces(BodySource):
    """Gives out pieces; an exception is raised, an event is waited for."""

    def __init__(self, *pieces: bytes | Exception | trio.Event, length: int | None = None) -> None:
        self.pieces, self.length, self.request = pieces, length, object()
        self.given = 0

    def rewind(self) -> None:
        self.given = 0

    @property
    def can_repeat(self) -> bool:
        return True

    @property
    def is_begun(self) -> bool:
        return self.given > 0

    @property
    def is_complete(self) -> bool:
        return self.given >= len(self.pieces)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.is_complete:
            return b""
        piece = self.pieces[self.given]
        self.given += 1
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, trio.Event):
            await piece.wait()
            return await self.receive()
        return piece


async def send(port: int, source: BodySource) -> Exchange:
    with trio.fail_after(10):
        return await begun(port, source)


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while piece := await stream.receive_some():
            data += piece
    return data


async def test_a_known_length_is_sent_with_it() -> None:
    seen = []

    async def handle(stream: trio.SocketStream) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(OK + b"Content-Length: 2\r\n\r\nok")

    async with serving(handle) as port:
        assert await whole_body(await send(port, Pieces(b"he", b"llo", length=5))) == b"ok"
    assert b"\r\nContent-Length: 5\r\n" in seen[0]
    assert b"Transfer-Encoding" not in seen[0]
    assert seen[0].endswith(b"\r\n\r\nhello")


async def test_an_unknown_length_is_sent_in_chunks() -> None:
    seen = []

    async def handle(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += await stream.receive_some()
        seen.append(data)
        await stream.send_all(OK + b"Content-Length: 0\r\n\r\n")

    async with serving(handle) as port:
        await whole_body(await send(port, Pieces(b"he", b"llo")))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in seen[0]
    assert b"Content-Length" not in seen[0]
    assert seen[0].endswith(b"\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")


async def test_an_early_refusal_ends_the_sending_and_is_the_answer() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 413 No\r\nContent-Length: 9\r\n\r\ntoo large")
        await read_all(stream)

    never = trio.Event()
    async with serving(handle) as port:
        exchange = await send(port, Pieces(b"head", never, b"rest", length=1000))
        assert exchange.status == 413
        assert await whole_body(exchange) == b"too large"


async def test_an_early_answer_that_is_no_refusal_waits_for_the_end_of_the_body() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        sized.set()
        got = 0
        while got < 3 * len(MEGABYTE):
            got += len(await stream.receive_some())
        await stream.send_all(b"4\r\nlast\r\n0\r\n\r\n")

    sized = trio.Event()
    source = Pieces(b"", b"head", sized, *[MEGABYTE] * 3, length=4 + 3 * len(MEGABYTE))
    source.given = 1
    async with serving(handle) as port:
        assert await whole_body(await send(port, source)) == b"last"
    assert source.is_complete


@pytest.mark.parametrize("stalled", [True, False])
async def test_an_engine_that_dies_in_the_body_is_lost(stalled: bool) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    rest = [trio.Event()] if stalled else [MEGABYTE] * 30
    async with serving(handle) as port:
        with pytest.raises(EngineDisconnected):
            await send(port, Pieces(b"head", *rest))


async def test_a_body_that_breaks_off_ends_the_request_in_its_middle() -> None:
    seen, done = [], trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        seen.append(await read_all(stream))
        done.set()

    async with serving(handle) as port:
        with pytest.raises(LookupError):
            await send(port, Pieces(b"half", LookupError()))
        with trio.fail_after(10):
            await done.wait()
    assert seen[0].endswith(b"4\r\nhalf\r\n")


async def test_a_request_that_is_cancelled_in_its_body_closes_the_connection() -> None:
    begun, done = trio.Event(), trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        begun.set()
        await read_all(stream)
        done.set()

    async with serving(handle) as port:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, port, Pieces(b"half", trio.Event()))
                await begun.wait()
                nursery.cancel_scope.cancel(reason="the client is gone")
            await done.wait()


async def test_an_exchange_that_is_aborted_in_its_body_raises_why() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await read_all(stream)

    opened: list[Exchange] = []
    async with serving(handle) as port, trio.open_nursery() as nursery:

        async def abort() -> None:
            while not source.is_begun:
                await trio.lowlevel.checkpoint()
            opened[0].abort(ExchangeAborted("stopping"))

        source = Pieces(b"half", trio.Event())
        nursery.start_soon(abort)
        with pytest.raises(ExchangeAborted, match="stopping"):
            await begun(port, source, opened)


# -- what an engine is blamed for ---------------------------------------------------------------


async def lose(engine: EngineClient, source: BodySource) -> None:
    with pytest.raises((EngineDisconnected, EngineUnreachable)):
        async with engine.forward_request("POST", "/", [], source):
            pass


async def answers_nothing(stream: trio.SocketStream) -> None:
    await read_request(stream)


async def takes_a_part(stream: trio.SocketStream) -> None:
    while b"xxx" not in await stream.receive_some():
        pass


async def test_an_engine_is_blamed_for_bodies_that_it_got_whole() -> None:
    async with serving(answers_nothing) as port:
        engine = LlamaCppEngine(f"http://{HOST}:{port}")
        source = Pieces(b"x", length=1)
        for _ in range(REFUSALS_MAX + 1):  # the same request again says nothing new
            source.rewind()
            await lose(engine, source)
        assert not engine.refuses.is_set()
        await lose(engine, Pieces(b"x", length=1))
        assert engine.refuses.is_set()
        await engine.aclose()


async def test_an_engine_is_not_blamed_for_uploads_that_it_closed_the_door_on() -> None:
    async with serving(takes_a_part) as port:
        engine = LlamaCppEngine(f"http://{HOST}:{port}")
        for _ in range(REFUSALS_MAX + 1):
            await lose(engine, Pieces(*[MEGABYTE] * 30))
        assert not engine.refuses.is_set()
        await engine.aclose()
