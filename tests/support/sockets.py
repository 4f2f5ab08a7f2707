"""A server on a loopback port that answers byte by byte, and what its client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Pulse
from trio_gateway.engine.http.opener import AddressOpener

Handler = Callable[[trio.SocketStream], Awaitable[None]]
HOST = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """A server on a loopback port, by default any; each connection is the handler's, and closed
    when it ends."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host=HOST)
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield port
        nursery.cancel_scope.cancel(reason="the test is over")


async def read_request(stream: trio.SocketStream) -> bytes:
    """One request, as far as its Content-Length says; `b""` if the client has closed."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
    while len(body) < length and (piece := await stream.receive_some()):
        body += piece
    return bytes(head + b"\r\n\r\n" + body)


async def begun(
    port: int, body: bytes | BodySource, opened: list[Exchange] | None = None, host: str = HOST
) -> Exchange:
    """The answer to a POST; `opened` has the exchange before that is here."""
    opener = AddressOpener(host, port)
    exchange = Exchange(await opener.connect(), opener, Pulse())
    if opened is not None:
        opened.append(exchange)
    try:
        await exchange.request("POST", "/v1/x", [(b"Accept", b"*/*")], body)
    except BaseException:
        exchange.close()
        raise
    return exchange


async def whole_body(exchange: Exchange) -> bytes:
    """All that is left of it; the connection is closed, however it ends."""
    pieces = []
    try:
        while piece := await exchange.receive():
            pieces.append(piece)
    finally:
        exchange.close()
    return b"".join(pieces)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
