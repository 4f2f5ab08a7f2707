"""The least that a proxy on trio can cost. It is not safe: it checks nothing.

    python -m benchmarks.relay.trio_proxy MODE --fd NUMBER --engine PORT [--certificate FILE]

`raw`: sockets, httptools, kept connections to the engine, and one decode of the body. `cycle`: an
ASGI app, called in the connection's own task.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import httptools
import trio

READ_MAX = 65536
Receive = Callable[[int], Awaitable[bytes | bytearray]]
Send = Callable[[bytes], Awaitable[None]]
Serve = Callable[[Receive, Send], Awaitable[None]]
Asgi = Callable[[dict[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]


class Asked:
    """A request, as httptools tells it."""

    __slots__ = ("headers", "is_complete", "parser", "pieces", "url")

    def __init__(self) -> None:
        self.url, self.is_complete = b"", False
        self.pieces: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_complete = True


class Answered:
    """An engine's answer, as httptools tells it."""

    __slots__ = ("content_type", "has_head", "is_complete", "parser", "pieces")

    def __init__(self) -> None:
        self.content_type, self.has_head, self.is_complete = b"", False, False
        self.pieces: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_complete = True


async def send_all(connection: trio.socket.SocketType, data: bytes) -> None:
    sent = await connection.send(data)
    while sent < len(data):
        sent += await connection.send(data[sent:])


class Engine:
    """Where requests go, and the connections that wait there for the next one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: list[trio.socket.SocketType] = []

    async def ask(self, path: bytes, body: bytes) -> AsyncIterator[tuple[Answered, bytes]]:
        """What each read gave. Read to its end by all: otherwise the connection is not kept."""
        connection = self._kept.pop() if self._kept else await self._connect()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: %d\r\n\r\n"
        await send_all(connection, head % (path, len(body)) + body)
        answer = Answered()
        while not answer.is_complete:
            data = await connection.recv(READ_MAX)
            if not data:
                raise ConnectionError("the engine closed the connection")
            answer.parser.feed_data(data)
            if answer.has_head and (answer.pieces or answer.is_complete):
                piece = b"".join(answer.pieces)
                answer.pieces.clear()
                yield answer, piece
        self._kept.append(connection)

    async def _connect(self) -> trio.socket.SocketType:
        connection = trio.socket.socket()
        connection.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        await connection.connect(("127.0.0.1", self._port))
        return connection


async def read_request(receive: Receive) -> Asked | None:
    """None: the client is gone."""
    asked = Asked()
    while not asked.is_complete:
        data = await receive(READ_MAX)
        if not data:
            return None
        asked.parser.feed_data(bytes(data))
    return asked


def frame(piece: bytes, is_last: bool) -> bytes:
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""
    return chunk + (b"0\r\n\r\n" if is_last else b"")


async def raw(engine: Engine, receive: Receive, send: Send) -> None:
    """One connection."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
    while (asked := await read_request(receive)) is not None:
        body = b"".join(asked.pieces)
        json.loads(body)
        head = begun
        async for answer, piece in engine.ask(asked.url, body):
            is_last = answer.is_complete
            if head and is_last:
                length = b"content-length: %d\r\n\r\n" % len(piece)
                await send(head % answer.content_type + length + piece)
                continue
            if head:
                head = head % answer.content_type + b"transfer-encoding: chunked\r\n\r\n"
            await send(head + frame(piece, is_last))
            head = b""


async def cycle(app: Asgi, receive: Receive, send: Send) -> None:
    """One connection: the app is called in this very task, and head and first body are one send."""
    while (asked := await read_request(receive)) is not None:
        path, _, query = asked.url.partition(b"?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": asked.parser.get_method().decode(), "scheme": "http", "root_path": "",
            "path": path.decode(), "raw_path": path, "query_string": query,
            "headers": asked.headers, "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 80),
            "state": {}, "extensions": {},
        }  # fmt: skip
        await app(scope, *_messages(asked, send))


def _messages(asked: Asked, send: Send) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """ASGI's `receive` and `send` of one request."""
    body, head, is_chunked = [b"".join(asked.pieces)], b"", False

    async def receive() -> dict[str, Any]:
        if not body:
            await trio.sleep_forever()
        return {"type": "http.request", "body": body.pop(), "more_body": False}

    async def send_message(message: dict[str, Any]) -> None:
        nonlocal head, is_chunked
        if message["type"] == "http.response.start":
            headers = message["headers"]
            is_chunked = all(name != b"content-length" for name, _ in headers)
            head = b"HTTP/1.1 %d OK\r\n" % message["status"]
            head += b"".join(b"%s: %s\r\n" % header for header in headers)
            head += b"transfer-encoding: chunked\r\n\r\n" if is_chunked else b"\r\n"
            return
        piece: bytes = message.get("body", b"")
        out = head + (frame(piece, not message.get("more_body")) if is_chunked else piece)
        head = b""
        if out:
            await send(out)

    return receive, send_message


def asgi_app(engine: Engine) -> Asgi:
    async def app(
        scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        json.loads(body)
        is_begun = False
        async for answer, piece in engine.ask(scope["raw_path"], body):
            if not is_begun:
                headers = [(b"content-type", answer.content_type)]
                if answer.is_complete:
                    headers.append((b"content-length", b"%d" % len(piece)))
                start = {"type": "http.response.start", "status": 200, "headers": headers}
                await send(start)
                is_begun = True
            more = not answer.is_complete
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return app


async def accept(listener: trio.socket.SocketType, run: Serve, tls: ssl.SSLContext | None) -> None:
    """Every connection in a task of its own."""

    async def serve_one(connection: trio.socket.SocketType) -> None:
        try:
            with connection:
                if tls is None:
                    await run(connection.recv, partial(send_all, connection))
                else:
                    stream = trio.SSLStream(trio.SocketStream(connection), tls, server_side=True)
                    await run(stream.receive_some, stream.send_all)
        except (OSError, trio.BrokenResourceError):
            return  # the client is gone

    async with trio.open_nursery() as nursery:
        while True:
            connection, _ = await listener.accept()
            if listener.family != trio.socket.AF_UNIX:
                connection.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            nursery.start_soon(serve_one, connection)


def options(*modes: str) -> argparse.ArgumentParser:
    """Of each of these programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--engine", type=int, required=True, help="its port")
    return parser


def main() -> None:
    parser = options("raw", "cycle")
    parser.add_argument("--certificate", help="with its key, in one file")
    given = parser.parse_args()
    engine = Engine(given.engine)
    is_raw = given.mode == "raw"
    connection: Serve = partial(raw, engine) if is_raw else partial(cycle, asgi_app(engine))
    tls = None
    if given.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(given.certificate)
    listener = socket.socket(fileno=given.fd)
    trio.run(accept, trio.socket.from_stdlib_socket(listener), connection, tls)


if __name__ == "__main__":
    main()
