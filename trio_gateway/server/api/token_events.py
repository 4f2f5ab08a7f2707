"""SeenEvents: how many tokens have come of a stream that does not say how many. Pure.

As many as events with a part of the answer in them: what opens and ends a stream has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trio_gateway.engine.clients.usage import finish_of_stream
from trio_gateway.rawjson import decode_or_none

_FIRST, _LAST = 1024, 2048  # bytes
_DONE = b"[DONE]"


def has_token(event: Mapping[str, Any]) -> bool:
    """Of an event's data, of any API."""
    kind, choices = event.get("type"), event.get("choices")
    if isinstance(kind, str):
        if kind == "content_block_delta":
            return _says(event.get("delta"), but=("type", "signature"))
        return kind.endswith(".delta")
    if isinstance(choices, list):
        return any(_is_said(choice) for choice in choices)
    return bool(event.get("content"))  # llama.cpp's own


def opening_of(first: bytes) -> tuple[int, int]:
    """How many events of a stream's first piece have no token, and their bytes."""
    end = _end_of(first)
    sizes = [len(event) + len(end) for event in first.split(end)[:-1] if _is_empty(event)]
    return len(sizes), sum(sizes)


class SeenEvents(NamedTuple):
    """What is kept of a stream to tell how many tokens it has. `first`: the first of its bytes;
    `last`: the newest; `size`: how many there are."""

    first: bytes
    last: bytes
    size: int

    @classmethod
    def of(cls, first: bytes, last: Sequence[bytes], size: int) -> SeenEvents:
        """`last`: its newest pieces. It costs 0.5 µs."""
        return cls(first[:_FIRST], b"".join(last)[-_LAST:], size)

    @property
    def tokens(self) -> int:
        """What is not kept is taken to be like the newest. It takes 10 µs for each event kept."""
        last = self.last
        if len(last) == _LAST < self.size:  # cut where it happened to be
            last = last.partition(_end_of(last))[2]
        begun = _Part(self.first[: self.size - len(last)])
        newest = _Part(last)
        between = self.size - len(last) - begun.size
        return begun.tokens + newest.tokens + round(between / newest.each if newest.each else 0)

    @property
    def finish(self) -> str:
        """Why it ended, in its API's word; empty: it does not say."""
        return finish_of_stream(self.last)


class _Part:
    """`tokens` in the whole events of a part of a stream; bytes of `each`, and of all events."""

    def __init__(self, text: bytes) -> None:
        end = _end_of(text)
        *events, rest = text.split(end)
        telling = [len(event) + len(end) for event in events if not _is_empty(event)]
        self.tokens = len(telling)
        self.each = sum(telling) / len(telling) if telling else 0.0
        self.size = len(text) - len(rest)


def _end_of(text: bytes) -> bytes:
    """Of its events."""
    return b"\r\n\r\n" if b"\r\n" in text else b"\n\n"


def _is_empty(event: bytes) -> bool:
    """It is whole and has no token. The rest of an event that was cut has."""
    lines = event.splitlines()
    data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
    if not data:
        return event.startswith(b":") or not event
    value = decode_or_none(data)
    return not has_token(value) if isinstance(value, dict) else data == _DONE


def _is_said(choice: Any) -> bool:
    return isinstance(choice, dict) and (
        bool(choice.get("text")) or _says(choice.get("delta"), but=("role",))
    )


def _says(delta: Any, but: Sequence[str]) -> bool:
    return isinstance(delta, dict) and any(said for name, said in delta.items() if name not in but)
