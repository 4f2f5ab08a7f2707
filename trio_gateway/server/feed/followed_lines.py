"""FollowedLines: lines of logs among the events of the feed, for a reader that asked for them.

A page has six connections to one server, all its tabs together: with its logs in the feed, it takes
one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec

from trio_gateway.lines import GATEWAY, LogLine
from trio_gateway.server.feed.logs import LineReader
from trio_gateway.server.feed.rows import Kind, Lines

PIECE_LINES = 200


class FollowedLines:
    """`said`: lines that were there before. Their events have no `id`: a reader that comes back
    gets them anew."""

    def __init__(self, reader: LineReader, said: Sequence[LogLine]) -> None:
        self._reader = reader
        self._waiting = [*_events(said, begins=True)][::-1]

    async def wait(self) -> None:
        """Until there is something to take."""
        if not self._waiting:
            await self._reader.wait()

    def take(self) -> bytes:
        """What is there, or a part of it; empty: nothing is."""
        if not self._waiting:
            missed, lines = self._reader.take()
            self._waiting = [*_events([*left_out(missed), *lines])][::-1]
        return self._waiting.pop() if self._waiting else b""


def left_out(missed: int) -> list[LogLine]:
    """A line in place of those that found no place."""
    if not missed:
        return []
    text = f"{missed} lines are left out here: this reader was too slow"
    return [LogLine(round(time.time(), 3), "WARNING", GATEWAY, text)]


def _events(lines: Sequence[LogLine], *, begins: bool = False) -> Iterator[bytes]:
    """In pieces that a reader takes one after the other. What begins is told if it is nothing."""
    for start in range(0, max(len(lines), int(begins)), PIECE_LINES):
        data = Lines(lines[start : start + PIECE_LINES], begins=begins and start == 0)
        yield b"event: %b\ndata: %b\n\n" % (Kind.LINES.value.encode(), msgspec.json.encode(data))
