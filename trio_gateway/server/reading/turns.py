"""Turns: places of which there are few, lent to the clients in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """Of one client, who comes first is first. Of several that wait, each has one turn before any
    of them has another: so a client that asks a hundred times at once keeps nobody waiting for
    more than what is under way."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lines: dict[str, deque[trio.Event]] = {}  # the first client is the next

    @asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        """Wait for a place, and have it until the block is left."""
        await self._take(client)
        try:
            yield
        finally:
            self._give()

    async def _take(self, client: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn = trio.Event()
        self._lines.setdefault(client, deque()).append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():  # it came when the cancellation was on its way
                self._give()
            else:
                self._lines[client].remove(turn)
                if not self._lines[client]:
                    del self._lines[client]
            raise

    def _give(self) -> None:
        if not self._lines:
            self._free += 1
            return
        client = next(iter(self._lines))
        line = self._lines.pop(client)
        line.popleft().set()
        if line:
            self._lines[client] = line
