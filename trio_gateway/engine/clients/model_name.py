"""Putting another model's name into a request, and leaving all its other bytes as they came."""

from __future__ import annotations

import re

import msgspec

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def with_model(body: bytes, name: str) -> bytes:
    """The request, a JSON object, with `name` as its `model`, also where it names none. The same
    object if that says so already, or if it is no JSON object.

    No key is there twice afterwards: of two models, which one counts is not the client's choice.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "model" not in fields:
            if _has_each_once(body, fields):
                return _with_member(body, b'"model":' + msgspec.json.encode(name), bool(fields))
        elif msgspec.json.decode(fields["model"]) == name:
            if _has_each_once(body, fields):
                return body
        elif (span := _span_of_model(body, fields)) is not None:
            return b"".join((body[: span[0]], msgspec.json.encode(name), body[span[1] :]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def _with_member(body: bytes, member: bytes, more_follow: bool) -> bytes:
    begin = body.index(b"{") + 1
    return b"".join((body[:begin], member, b"," if more_follow else b"", body[begin:]))


def _has_each_once(body: bytes, fields: dict[str, msgspec.Raw]) -> bool:
    return len(_walk(body, fields)) == len(fields)


def _span_of_model(body: bytes, fields: dict[str, msgspec.Raw]) -> tuple[int, int] | None:
    """Where the value of `model` begins and ends; None if a key is there twice."""
    spans = _walk(body, fields)
    return spans["model"] if len(spans) == len(fields) else None


def _walk(body: bytes, fields: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    """The place of each value, as far as each key is there once. The values' lengths are known, so
    none of them is read again."""
    spans: dict[str, tuple[int, int]] = {}
    at = _after(_SPACE, body, 0) + 1  # behind the `{`
    while (key := _STRING.match(body, _after(_SPACE, body, at))) is not None:
        name = msgspec.json.decode(key[0], type=str)
        begin = _after(_SPACE, body, _after(_SPACE, body, key.end()) + 1)  # behind the `:`
        value = bytes(fields[name])
        if name in spans or not body.startswith(value, begin):
            return {}
        spans[name] = begin, begin + len(value)
        at = _after(_SPACE, body, begin + len(value)) + 1  # behind the `,`
    return spans


def _after(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    assert match is not None
    return match.end()
