"""Ring: the last events, encoded once for all readers, each of which has its own place in it. Pure.

It is bounded in events and bytes, and a reader holds nothing of it: whoever is slower than that
finds its place gone, and starts anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import msgspec

EVENTS_MAX = 4000
BYTES_MAX = 1024**2


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One event. `text`: as an admin gets it; `plain`: as others do, where that is not the same.
    `key`: whose request it is about; None: nobody's, or of a client without a key. `model`: which
    one it is about."""

    text: bytes
    key: str | None = None
    model: str | None = None
    plain: bytes = b""


class Ring:
    """`last`: the number of the newest event; they are counted from 1. `bytes`: what all have."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries: deque[Entry] = deque()
        self._events_max, self._bytes_max = events_max, bytes_max
        self.bytes = 0
        self.last = 0

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.bytes += _size(entry)
        self.last += 1
        while len(self._entries) > self._events_max or self.bytes > self._bytes_max:
            self.bytes -= _size(self._entries.popleft())

    def clear(self) -> None:
        """Whoever has not read all of it by now starts anew, and so does who has."""
        self._entries.clear()
        self.bytes = 0
        self.last += 1

    def has_after(self, number: int) -> bool:
        """Whether nothing is missing for who has got all up to this one."""
        return self.last - len(self._entries) <= number <= self.last

    def after(self, number: int) -> Iterator[tuple[int, Entry]]:
        """The events after this one, with their numbers. The ring must not change meanwhile."""
        first = self.last - len(self._entries) + 1
        return enumerate(islice(self._entries, number + 1 - first, None), number + 1)


def _size(entry: Entry) -> int:
    return len(entry.text) + len(entry.plain)
