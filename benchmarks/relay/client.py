"""A client that costs little, and says when each byte came."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.relay.fake_engine import WORD

BLANK_LINE = b"\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
# One for each of the engine's chunks, but for a few that frames of a proxy cut in two.
TEXT = b'"%s' % WORD.encode()


@dataclass(frozen=True)
class Address:
    """Where a server listens: a port on loopback, or a socket file."""

    port: int = 0
    file: Path | None = None
    tls: ssl.SSLContext | None = None


@dataclass
class Answer:
    """What came, and when: seconds since the request was written."""

    first_s: float = 0.0  # the body's first byte
    whole_s: float = 0.0
    chunks: int = 0
    came_s: list[float] = field(default_factory=list)  # each read of a stream that had text


class Client(asyncio.Protocol):
    """One connection, and one request at a time on it."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, address: Address) -> Client:
        loop = asyncio.get_running_loop()
        if address.file is not None:
            _, client = await loop.create_unix_connection(cls, str(address.file))
        else:
            _, client = await loop.create_connection(
                cls, "127.0.0.1", address.port, ssl=address.tls
            )
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Also while an answer comes."""
        if self._answered is not None:
            self._answered.cancel()
        self._transport.abort()

    async def ask(self, request: bytes) -> Answer:
        """It has no timeout, which would cost more than the rest: whoever asks has one for all."""
        self.begin(request)
        assert self._answered is not None
        await self._answered
        return self._answer

    def begin(self, request: bytes) -> None:
        """Without waiting for its answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._has_begun = asyncio.Event()
        self._head, self._body_left, self._tail = b"", 0, b""
        self._answer = Answer()
        self._begun = time.perf_counter()
        self._transport.write(request)

    async def first_byte(self) -> None:
        """Of what `begin` asked for."""
        await self._has_begun.wait()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter() - self._begun
        answer = self._answer
        if not answer.first_s:
            self._head += data
            head, _, data = self._head.partition(BLANK_LINE)
            if not data:
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self._end(ConnectionError(f"unexpected answer: {self._head[:500]!r}"))
                return
            answer.first_s = now
            self._has_begun.set()
            self._body_left = _content_length(head)
        if self._body_left:
            self._body_left -= len(data)
            is_over = self._body_left <= 0
        else:
            # With the end of the last read: a text or the last chunk may be split between two.
            seen = self._tail + data
            found = seen.count(TEXT)
            if found:
                answer.chunks += found
                answer.came_s.append(now)
            self._tail = seen[1 - len(TEXT) :]
            is_over = seen.endswith(LAST_CHUNK)
        if is_over:
            answer.whole_s = now
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        assert self._answered is not None
        if self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _content_length(head: bytes) -> int:
    """0: the answer is chunked."""
    _, name, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n")[0]) if name else 0


async def ask_once(address: Address, request: bytes) -> Answer:
    """On a connection of its own."""
    client = await Client.open(address)
    try:
        return await client.ask(request)
    finally:
        client.close()
