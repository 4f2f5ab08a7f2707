"""A reader of `/gateway/events`, over HTTP/1.0: what comes is the body as it is, to its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from tests.support.stack import Stack

FEED = "/gateway/events"


class Event(NamedTuple):
    id: str
    name: str
    data: Any


def events_in(text: bytes) -> list[Event]:
    """The whole events of this part of a stream; comments are left out."""
    found = list[Event]()
    for block in text.split(b"\n\n"):
        if block and not block.startswith(b":"):
            fields = dict(line.split(": ", 1) for line in block.decode().splitlines())
            data = json.loads(fields["data"])
            found.append(Event(fields.get("id", ""), fields["event"], data))
    return found


class Reader:
    """`events` has what came so far; comments are counted. `is_over`: there is no more."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""
        self.status = 0
        self.events: list[Event] = []
        self.comments = 0
        self.at = 0
        self.is_over = False

    async def begin(self) -> None:
        """Read the head."""
        while b"\r\n\r\n" not in self._rest:
            self._rest += await self._stream.receive_some()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        if b"text/event-stream" in head:
            self._parse(b"")

    async def read(self) -> None:
        """What comes next."""
        piece = await self._stream.receive_some()
        self.is_over = not piece
        self._parse(piece)

    def _parse(self, piece: bytes | bytearray) -> None:
        whole, _, self._rest = (self._rest + piece).rpartition(b"\n\n")
        self.comments += sum(block.startswith(b":") for block in whole.split(b"\n\n"))
        self.events += events_in(whole)

    async def next(self, *names: str) -> Event:
        """The next event with one of these names; others are passed over."""
        with trio.fail_after(600):
            while True:
                while self.at < len(self.events):
                    self.at += 1
                    if not names or self.events[self.at - 1].name in names:
                        return self.events[self.at - 1]
                assert not self.is_over, "the stream is over"
                await self.read()

    async def read_to_end(self) -> bytes:
        """Of an answer that is no stream of events."""
        while piece := await self._stream.receive_some():
            self._rest += piece
        return self._rest


def request_for(path: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.0\r\nHost: gateway\r\n{lines}\r\n".encode()


@asynccontextmanager
async def reading(
    stack: Stack, headers: Mapping[str, str] | None = None, path: str = FEED
) -> AsyncIterator[Reader]:
    async with stack.network.connect() as connection:
        await connection.send_all(request_for(path, headers or {}))
        reader = Reader(connection)
        await reader.begin()
        yield reader
