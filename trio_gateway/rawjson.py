"""JSON as bytes: what an object has in it, and a member replaced with every other byte left alone.

Nothing here reads a value that was not asked for: the members of an object stay as they were
written, and decoding one of them reads no other. Pure; imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

Members = dict[str, msgspec.Raw]

# What decoding raises; RecursionError where values are nested deeper than the decoder goes.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_T = TypeVar("_T")
# The name of the next member, up to where its value begins; a value has no name of its own.
_NAME = re.compile(rb'[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_END = re.compile(rb"[ \t\r\n]*[,}]")
# Made once, they take half the time of `msgspec.json.decode(data, type=…)`; where the type is a
# struct there is nothing to gain. They raise NOT_JSON.
decode: Callable[[bytes | str | msgspec.Raw], Any] = msgspec.json.Decoder().decode
_BEGINNING = 64  # bytes that tell with which blanks an object is likely to be written
_decode_members: Callable[[bytes], Members] = msgspec.json.Decoder(Members).decode
_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def members(data: bytes) -> Members:
    """The members of an object, each value as it is written; of one name the last.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is not an object (NOT_JSON).
    """
    return _decode_members(data)


def members_or_none(data: bytes) -> Members | None:
    """None: it is not an object."""
    try:
        return _decode_members(data)
    except NOT_JSON:
        return None


@overload
def decode_or_none(data: bytes | str | msgspec.Raw) -> Any: ...
@overload
def decode_or_none(data: bytes | str | msgspec.Raw, shape: type[_T]) -> _T | None: ...
def decode_or_none(data: bytes | str | msgspec.Raw, shape: Any = Any) -> Any:
    """The value, of this type; None: it is not JSON, or not of this type."""
    try:
        return msgspec.json.decode(data, type=shape)
    except NOT_JSON:
        return None


def whole_number(value: object) -> int | None:
    """Of a decoded value: an integer, also one that is written `4.0` or `1e2`. None: it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class NameTwice(ValueError):
    """An object has two members of one name, which parsers read differently."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the field {msgspec.json.encode(name[:80]).decode()} appears twice")


def check_names(data: bytes, members: Members) -> None:
    """Of an object and its members. Nearly every one is written in one of the two usual ways, and
    to compare it with those takes a tenth of the time.

    Raises:
        NameTwice
    """
    if _way_of(data.strip(), members) is None:
        spans(data, members)


def _way_of(data: bytes, members: Members) -> Callable[[Members], bytes] | None:
    """What would write the object as it is, without a member twice; None: it is written in none of
    the two usual ways."""
    spaced_first = data.find(b'": ', 0, _BEGINNING) >= 0
    for write in (_spaced, _encode) if spaced_first else (_encode, _spaced):
        if write(members) == data:
            return write
    return None


def _spaced(members: Members) -> bytes:
    pairs = zip(map(_encode, members), members.values(), strict=True)
    return b"{%b}" % b", ".join(map(b"%b: %b".__mod__, pairs))


def spans(data: bytes, members: Members) -> dict[str, tuple[int, int]]:
    """Where the value of each member begins and ends in the object. The values' lengths are known,
    so none of them is read again.

    Raises:
        NameTwice
    """
    found: dict[str, tuple[int, int]] = {}
    at = data.index(b"{") + 1
    while (name := _NAME.match(data, at)) is not None:
        text = name[1]
        key = msgspec.json.decode(text, type=str) if b"\\" in text else text[1:-1].decode()
        begin, value = name.end(), bytes(members[key])
        end = begin + len(value)
        after = _END.match(data, end)
        if key in found or after is None or not data.startswith(value, begin):
            raise NameTwice(key)  # `members` has the last of them
        found[key] = begin, end
        at = after.end()
    return found


def replace_member(data: bytes, name: str, value: bytes, known: Members | None = None) -> bytes:
    """The object with this JSON value as its member `name`, also where it has none. The same bytes
    if it says so already, or if it is not an object. `known`: its members, if they are known.

    No name is in it twice afterwards: of two members of one name, parsers take this one or that.
    """
    found = members_or_none(data) if known is None else known
    if found is None:
        return data
    if name in found and (write := _way_of(data, found)) is not None:
        if bytes(found[name]) == value:
            return data
        return write({**found, name: msgspec.Raw(value)})
    try:
        places = spans(data, found)
    except NameTwice:
        return msgspec.json.encode({**found, name: msgspec.Raw(value)})
    if name in places:
        begin, end = places[name]
        if data[begin:end] == value:
            return data
        return b"".join((data[:begin], value, data[end:]))
    begin = data.index(b"{") + 1
    member = msgspec.json.encode(name) + b":" + value
    return b"".join((data[:begin], member, b"," if found else b"", data[begin:]))
