"""A small server with OpenAI's API over a real socket, which breaks off where it is told to."""

from __future__ import annotations

import contextlib
import enum
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from tests.support.sockets import OK, chunked, read_request, serving

EVENT = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
NOT_FOUND = (404, {"error": {"message": "no such path"}})


class Breaks(enum.Enum):
    """Where the answer to a completion ends too early."""

    BEFORE_HEAD = "before the head"
    AFTER_HEAD = "after the head"
    AFTER_FIRST_BYTE = "after the first byte"
    IN_THE_MIDDLE = "in the middle of a whole answer"


class Site:
    """`answers`: status and body for each path. Completions have the site's name in them."""

    def __init__(
        self, name: str = "a", answers: Mapping[str, tuple[int, Any]] | None = None
    ) -> None:
        self.name = name
        self.answers = {"/health": (200, {}), "/v1/models": (200, {"data": []}), **(answers or {})}
        self.breaks: Breaks | None = None
        self.status = 200  # of completions
        self.chunked = False  # completions that are not streams have no length either
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.bodies: dict[str, list[bytes]] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __call__(self, stream: Any) -> None:
        head, _, body = (await read_request(stream)).partition(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        self.heads.append(head)
        self.bodies.setdefault(path, []).append(body)
        if path in self.answers:
            await self.send(stream, *self.answers[path])
        elif path.endswith("/completions"):
            await self.complete(stream, msgspec.json.decode(body))
        else:
            await self.send(stream, *NOT_FOUND)

    async def complete(self, stream: Any, request: dict[str, Any]) -> None:
        if self.status != 200:
            await self.send(stream, self.status, {"error": {"message": f"{self.name} is busy"}})
        elif self.breaks is Breaks.BEFORE_HEAD:
            return
        elif request.get("stream"):
            await stream.send_all(STREAM)
            if self.breaks is Breaks.AFTER_HEAD:
                return
            await stream.send_all(chunked(EVENT % self.name.encode()))
            if self.breaks is not Breaks.AFTER_FIRST_BYTE:
                await stream.send_all(chunked(DONE) + b"0\r\n\r\n")
        else:
            await self.send(stream, 200, {"from": self.name, "model": request["model"]})

    async def send(self, stream: Any, status: int, value: Any) -> None:
        body = msgspec.json.encode(value)
        head = f"HTTP/1.1 {status} So\r\nContent-Type: application/json\r\n"
        head += "Set-Cookie: a=b\r\nX-Gateway-Variant: 1\r\n"
        completes = self.asked[-1].endswith("completions")
        if self.chunked and completes:
            head += "Transfer-Encoding: chunked\r\n\r\n"
            half = len(body) // 2
            body = chunked(body[:half], body[half:], b"")
        else:
            head += f"Content-Length: {len(body)}\r\n\r\n"
        halved = self.breaks is Breaks.IN_THE_MIDDLE and completes
        await stream.send_all(head.encode() + body[: len(body) // 2 if halved else None])


@asynccontextmanager
async def running(site: Site, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    async def handle(stream: trio.SocketStream) -> None:
        if tls is None:
            await site(stream)
            return
        secure = trio.SSLStream(stream, tls, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):  # a client that does not trust it
            await site(secure)

    async with serving(handle) as site.port:
        yield site
