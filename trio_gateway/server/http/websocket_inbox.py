"""MessageInbox: the messages of a client's WebSocket that its app has not asked for yet."""

from __future__ import annotations

from collections import deque

import trio

from trio_gateway.server.budget import Hold
from trio_gateway.server.http.types import Message

INBOX_BYTES = 65536
_MESSAGE_COST = 64  # what an empty message counts, in bytes


class MessageInbox:
    """In order. One task puts in, another one gets."""

    def __init__(self) -> None:
        self._messages: deque[tuple[Message, int]] = deque()
        self._size = self._given = 0
        self.hold: Hold | None = None  # for what it gives, until the next is asked for
        self._last: Message | None = None
        self._is_abandoned = False
        self._news, self._room = trio.Event(), trio.Event()

    @property
    def is_ended(self) -> bool:
        return self._last is not None

    async def put(self, message: Message, size: int) -> None:
        """Add one, and wait until there is room for the next."""
        self._messages.append((message, size + _MESSAGE_COST))
        self._size += size + _MESSAGE_COST
        self._news.set()
        while self._size > INBOX_BYTES and not self._is_abandoned:
            self._room = trio.Event()
            await self._room.wait()

    def end(self, message: Message) -> None:
        """What comes after all others, and again each time that it is asked for. The first such
        message stays."""
        if self._last is None:
            self._last = message
            self._news.set()

    def abandon(self) -> None:
        """Nobody will ask for anything more, so nobody waits for room."""
        self._is_abandoned = True
        self._room.set()

    async def get(self) -> Message:
        """The app's `receive`."""
        await trio.lowlevel.checkpoint()  # who takes many must not keep others from theirs
        if self.hold is not None:
            self.hold.give(self._given)
            self._given = 0
        while not self._messages:
            if self._last is not None:
                return self._last
            self._news = trio.Event()
            await self._news.wait()
        message, size = self._messages.popleft()
        self._size -= size
        self._given = size - _MESSAGE_COST
        self._room.set()
        return message
