"""CacheBreaks: notices a request that parts early from the last one of its conversation. Pure.

An engine reads again whatever follows the first difference. A clock or a checksum in a system
prompt makes it read all, each time, and nobody sees why it is slow.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import msgspec

from trio_gateway.models.need.outline import SYSTEM, Outline, message_digest, outline_of

SHARED_MIN = 0.5  # of the bytes of the last request
CHATS_MAX = 64
BYTES_MAX = 8 << 20  # of all chats that are remembered, as JSON
_Key = tuple[str, str, bytes]  # the owner, the model, the beginning
_AROUND = 24  # bytes before the first difference; after it twice as many


class CacheBreak(msgspec.Struct, frozen=True):
    """`part`: the first one that differs, such as `messages[0] (system)`. `at`: the byte in it,
    and `now` and `before` the text around that; None: too far back to be known."""

    part: str
    shared_bytes: int
    last_bytes: int
    at: int | None = None
    now: str = ""
    before: str = ""

    @property
    def where(self) -> str:
        """Without a word of what it says."""
        return self.part if self.at is None else f"{self.part}, byte {self.at}"

    def __str__(self) -> str:
        return (
            f"only {self.shared_bytes} of {self.last_bytes} bytes are as in the last request of its"
            f" conversation, and all after them is read again; the first to differ: {self.where}"
        )

    @property
    def excerpts(self) -> str:
        """The text around the first difference; a part of two prompts."""
        return "" if self.at is None else f"{self.now!r} now, {self.before!r} before"


class Thread(NamedTuple):
    """Tells a conversation. `beginning`: the first of its messages that was seen, as a digest.
    `number`: of those that are remembered and begin like this."""

    beginning: bytes
    number: int


class Chat(msgspec.Struct, eq=False):
    """What a request says: decoded; or `of_outline`, of one that was read elsewhere. `size`: of it
    as JSON, in bytes. `beginning`: tells the first message that is no system text, which all
    requests of a conversation have; empty without one. `thread`: its conversation, once it is
    noted. `outlined`: its outline, once it was needed."""

    size: int
    messages: Any  # a list, once it is made
    tools: Any = None
    given: Outline | None = None
    beginning: bytes = b""
    thread: Thread | None = None
    outlined: Outline | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.messages, list):
            self.messages = []
        if self.given is not None:
            self.outlined = self.given
            self.beginning = next((part.digest for part in self.given.turns), b"")
        for message in self.messages:
            if not (isinstance(message, dict) and message.get("role") in SYSTEM):
                self.beginning = message_digest(message)
                break

    @classmethod
    def of_outline(cls, size: int, outline: Outline) -> Chat:
        return cls(size, [], None, outline)

    @property
    def is_first(self) -> bool:
        """Nothing was answered before."""
        return self.given is None and len(self.messages) < 3

    @property
    def outline(self) -> Outline | None:
        """None: it has too many parts to be compared."""
        if self.outlined is None:
            self.outlined = outline_of(self.messages, self.tools)
        return self.outlined

    @property
    def ending(self) -> bytes:
        if self.given is not None:
            return self.given.parts[-1].digest if self.given.parts else b""
        return message_digest(self.messages[-1]) if self.messages else b""

    def clearly_goes_on_from(self, last: Chat) -> bool:
        """To the letter. It may do so otherwise, too."""
        before: list[Any] = last.messages
        now: list[Any] = self.messages
        if not before or self.tools != last.tools:
            return False
        return now[: len(before)] == before


class CacheBreaks:
    """Remembers the last chats, in memory only. Those of other API keys and models are never
    compared."""

    def __init__(self) -> None:
        # Several conversations may begin alike. What was used last is at the end.
        self._chats: OrderedDict[_Key, list[Chat]] = OrderedDict()
        self._count = self._bytes = 0

    def note(self, owner: str, model: str, chat: Chat) -> CacheBreak | None:
        """A request of this owner has come. What it tells about its conversation's cache; None:
        nothing is wrong, or it is the first of one. 4 µs for a short chat that goes on.

        Raises:
            RecursionError: nested deeper than any JSON that an engine reads.
        """
        if not (beginning := chat.beginning):
            return None
        key = (owner, model, beginning)
        alike = self._chats.get(key, [])
        for place, last in enumerate(alike):
            if chat.clearly_goes_on_from(last):
                alike[place], chat.thread = chat, last.thread
                self._bytes += chat.size - last.size
                self._chats.move_to_end(key)
                if self._bytes > BYTES_MAX:
                    self._make_room()
                return None
        found = [
            (*compared, at, last)
            for at, last in self._candidates(key, chat)
            if (compared := _compared(last, chat)) is not None
        ]
        if not found:
            taken = [last.thread.number for last in alike if last.thread is not None]
            number = max(taken, default=-1) + 1
            chat.thread = Thread(beginning, number)
            self._remember(key, chat)
            return None
        share, broken, at, last = max(found, key=lambda entry: entry[0])
        chat.thread = last.thread
        self._remember(key, chat, at, last)
        return broken if share < SHARED_MIN else None

    def _candidates(self, key: _Key, chat: Chat) -> list[tuple[_Key, Chat]]:
        """Those that begin alike; or else those that ended with what this one goes on from: its
        first messages may have been left out, for want of room."""
        if key in self._chats:
            return [(key, last) for last in self._chats[key]]
        if chat.is_first or (outline := chat.outline) is None:
            return []
        ending, own = outline.ending_before, key[:2]
        return [
            (at, last)
            for at, chats in self._chats.items()
            if at[:2] == own
            for last in chats
            if last.ending == ending
        ]

    def _remember(
        self, key: _Key, chat: Chat, at: _Key | None = None, instead: Chat | None = None
    ) -> None:
        if at is not None and instead is not None:
            self._forget(at, instead)
        self._chats.setdefault(key, []).append(chat)
        self._chats.move_to_end(key)
        self._count, self._bytes = self._count + 1, self._bytes + chat.size
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes > BYTES_MAX or self._count > CHATS_MAX:
            oldest = next(iter(self._chats))
            self._forget(oldest, self._chats[oldest][0])

    def _forget(self, key: _Key, chat: Chat) -> None:
        chats = self._chats[key]
        chats.remove(chat)
        if not chats:
            del self._chats[key]
        self._count, self._bytes = self._count - 1, self._bytes - chat.size


def _compared(last: Chat, chat: Chat) -> tuple[float, CacheBreak] | None:
    """How much of the last one the other shares, and where they part; None: it does not go on from
    that one. It does if most of the last one's turns are in it, the last of them included, and one
    that is new."""
    before, now = last.outline, chat.outline
    if before is None or now is None:
        return None
    old = Counter(part.digest for part in before.turns)
    new = Counter(part.digest for part in now.turns)
    is_longer = new[ending := now.parts[-1].digest] > old[ending]
    if not is_longer or last.ending not in new or 2 * (old & new).total() < old.total():
        return None
    total = sum(part.size for part in before.parts)
    pairs = enumerate(zip(before.parts, now.parts, strict=False))
    place = next((i for i, (one, other) in pairs if one.digest != other.digest), None)
    if place is None:
        return 1.0, CacheBreak("", total, total)
    shared = sum(part.size for part in before.parts[:place])
    return _where(before, now, place, shared, total)


def _where(
    before: Outline, now: Outline, place: int, shared: int, total: int
) -> tuple[float, CacheBreak]:
    """`place`: of the first part that differs; `shared`: bytes before it."""
    name, sizes = now.name_of(place), (before.parts[place].size, now.parts[place].size)
    one = before.text[shared : shared + sizes[0]]
    other = now.text[shared : shared + sizes[1]]
    at = _same(one, other)
    if at == min(len(one), len(other)) < min(sizes):
        return (shared + min(sizes)) / total, CacheBreak(name, shared, total)
    around = slice(max(at - _AROUND, 0), at + 2 * _AROUND)
    return (shared + at) / total, CacheBreak(
        name, shared + at, total, at, _shown(other[around]), _shown(one[around])
    )


def _same(one: bytes, other: bytes) -> int:
    """Bytes that are the same at the beginning of both. By halves: a loop takes 50 ns a byte."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shown(text: bytes) -> str:
    return text.decode(errors="replace")
