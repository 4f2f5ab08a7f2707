"""Outline: a chat as its parts, each told by a digest, so that two requests can be compared. Pure.

What a template leaves out or writes alike is left out here, too: marks for caches, reasoning of
earlier answers, and whether a text came as a string or as parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

# Of its text, from the beginning: whatever breaks a cache badly is there. The rest is told by part.
KEPT_BYTES = 65_536
PARTS_MAX = 5_000
SYSTEM = ("system", "developer")
TOOL = ""  # no message has this kind
_NO_TURNS = (*SYSTEM, TOOL)

_encode = msgspec.json.Encoder().encode


class Part(msgspec.Struct, frozen=True, array_like=True):
    """`kind`: of a message its role, otherwise TOOL. `size`: in bytes."""

    kind: str
    digest: bytes
    size: int


class Outline(msgspec.Struct, frozen=True):
    """`parts`: the tools, and then the messages. `text`: how theirs begins, all in a row."""

    parts: tuple[Part, ...]
    text: bytes

    @property
    def turns(self) -> list[Part]:
        """What users, assistants and tools said."""
        return [part for part in self.parts if part.kind not in _NO_TURNS]

    @property
    def ending_before(self) -> bytes:
        """The digest of the part that the last answer in it answers: with that, the request before
        ended. Empty: there was none."""
        place = len(self.parts) - 1
        while place > 0 and self.parts[place].kind != "assistant":
            place -= 1
        while place > 0 and self.parts[place].kind == "assistant":
            place -= 1
        return self.parts[place].digest if place > 0 else b""

    def name_of(self, place: int) -> str:
        """Of a part, as an engine counts: `tools[3]`, `messages[0] (system)`."""
        tools = sum(part.kind == TOOL for part in self.parts)
        if place < tools:
            return f"tools[{place}]"
        return f"messages[{place - tools}] ({self.parts[place].kind[:20]})"


def outline_of(messages: Any, tools: Any) -> Outline | None:
    """None: it has too many parts to be compared.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    parts, kept, left = list[Part](), list[bytes](), KEPT_BYTES
    for kind, text in _texts(messages, tools):
        if len(parts) == PARTS_MAX:
            return None
        parts.append(Part(kind, _digest(text), len(text)))
        if left > 0:
            kept.append(text[:left])
            left -= len(text)
    return Outline(tuple(parts), b"".join(kept))


def message_digest(message: Any) -> bytes:
    """As in an outline. 2 µs for a short one."""
    return _digest(_text_of(message))


def _texts(messages: Any, tools: Any) -> Iterator[tuple[str, bytes]]:
    for tool in tools if isinstance(tools, list) else ():
        yield TOOL, _encode(tool)
    for message in messages if isinstance(messages, list) else ():
        role = message.get("role") if isinstance(message, dict) else None
        is_word = isinstance(role, str) and role.isascii() and role.isidentifier()
        yield str(role) if is_word else "message", _text_of(message)


def _text_of(message: Any) -> bytes:
    if not isinstance(message, dict):
        return _encode(message)
    role, content = message.get("role"), message.get("content")
    calls = message.get("tool_calls")
    if isinstance(content, str) and not calls:  # as most are
        return f"{role}\n{content}".encode()
    if isinstance(content, list):
        text = b"".join(map(_text_of_part, content))
    else:
        text = content.encode() if isinstance(content, str) else _encode(content)
    return b"%b\n%b%b" % (str(role).encode(), text, _encode(calls) if calls else b"")


def _text_of_part(part: Any) -> bytes:
    text = part.get("text") if isinstance(part, dict) else None
    return text.encode() if isinstance(text, str) else _encode(part)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).digest()
