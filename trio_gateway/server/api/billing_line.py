"""The line that Claude Code puts before its system text, made constant. Pure.

`x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;` has a checksum
that is another one with each request. It stands before all else, so an engine would find nothing
of a conversation in its cache, ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.rawjson import Members

_BEGINNING = "x-anthropic-billing-header:"
CONSTANT = b"x-anthropic-billing-header: constant"
# At the beginning of a JSON string, up to its end or that of the line, however that is written.
_LINE = re.compile(rb'(?<=")x-anthropic-billing-header:(?:[^"\\]|\\(?!u000[aAdD])[^nr])*')
_SYSTEM = ("system", "developer")

Place = tuple[int, int]


class Found(msgspec.Struct, frozen=True):
    """`member`: the field that it is in. `places`: where in the field's JSON it begins and ends."""

    member: str
    places: tuple[Place, ...]


def find_billing_line(values: Mapping[str, Any], members: Members) -> Found | None:
    """In the system text of a request, whatever API it came through; a user's text is left alone.
    0.5 µs, where there is none."""
    member = _member_with_it(values)
    if member is None:
        return None
    # A field of a system text may have several blocks; of messages, the first is meant.
    matches = _LINE.finditer(bytes(members[member]))
    places = [match.span() for match in matches]
    if not places:
        return None  # it is written with escapes
    return Found(member, tuple(places if member in ("system", "instructions") else places[:1]))


def with_constant_line(raw: bytes, places: tuple[Place, ...]) -> bytes:
    """The JSON of a field with the lines at these places made constant."""
    made, at = [], 0
    for begin, end in places:
        made += [raw[at:begin], CONSTANT]
        at = end
    return b"".join((*made, raw[at:]))


def _member_with_it(values: Mapping[str, Any]) -> str | None:
    if "system" in values and _has_it(values["system"]):
        return "system"
    if "instructions" in values and _has_it(values["instructions"]):
        return "instructions"
    member = "messages" if "messages" in values else "input"
    messages = values.get(member)
    first = messages[0] if isinstance(messages, list) and messages else None
    if isinstance(first, dict) and first.get("role") in _SYSTEM and _has_it(first.get("content")):
        return member
    return None


def _has_it(text: Any) -> bool:
    """A text, or blocks with texts."""
    if isinstance(text, str):
        return text.startswith(_BEGINNING)
    if not isinstance(text, list):
        return False
    return any(
        isinstance(block, dict)
        and isinstance(block.get("text"), str)
        and block["text"].startswith(_BEGINNING)
        for block in text
    )
