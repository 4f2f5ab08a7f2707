"""HidingAnswerName: an answer that does not say how much of its prompt was read before."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.answer_name import AnswerName

# Members whose values are objects. Inside a JSON string their quotes would be escaped.
_OBJECT = rb"\{(?:[^{}]|\{[^{}]*\})*\}"
_MEMBERS = re.compile(rb'"(usage|timings|prompt_progress)"(\s*:\s*)(' + _OBJECT + rb")")
_DETAILS = ("prompt_tokens_details", "input_tokens_details")
# What was read tells what was not; its time tells it as well.
_TIMINGS = ("cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second")
_WORDS = (b'"usage"', b'"timings"', b'"prompt_progress"')


class HidingAnswerName(AnswerName):
    """As AnswerName, for `hide_cached_tokens`."""

    def __init__(self, asked: str) -> None:
        super().__init__(asked)
        self._line: list[bytes] = []

    @classmethod
    def in_whole(cls, asked: str, body: bytes) -> bytes:
        return without_cache(super().in_whole(asked, body))

    def in_piece(self, piece: bytes) -> bytes:
        """Of whole lines: a member that is cut in two would not be found."""
        end = piece.rfind(b"\n") + 1
        if not end:
            self._line.append(piece)
            return b""
        text = b"".join((*self._line, piece[:end]))
        self._line = [piece[end:]]
        return without_cache(super().in_piece(text))

    def rest(self) -> bytes:
        line, self._line = b"".join(self._line), []
        return without_cache(super().in_piece(line) + super().rest())


def without_cache(text: bytes) -> bytes:
    """JSON, or lines with JSON in them, as if nothing had been found in a cache."""
    if not any(word in text for word in _WORDS):
        return text
    return _MEMBERS.sub(_hidden, text)


def _hidden(match: re.Match[bytes]) -> bytes:
    found: Any = decode_or_none(match[3])
    if not isinstance(found, dict):
        return match[0]
    match match[1]:
        case b"usage":
            _hide_usage(found)
        case b"timings":
            found = {name: value for name, value in found.items() if name not in _TIMINGS}
        case _:
            found = {name: value for name, value in found.items() if name == "total"}
    return b'"%s"%s%s' % (match[1], match[2], msgspec.json.encode(found))


def _hide_usage(usage: dict[str, Any]) -> None:
    for name in _DETAILS:
        if isinstance(details := usage.get(name), dict) and "cached_tokens" in details:
            details["cached_tokens"] = 0
    # Anthropic's counts them apart from the others.
    read, rest = usage.get("cache_read_input_tokens"), usage.get("input_tokens")
    if isinstance(read, int) and isinstance(rest, int):
        usage["cache_read_input_tokens"], usage["input_tokens"] = 0, rest + read
