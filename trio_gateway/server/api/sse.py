"""Server-sent events, as far as the gateway writes or reads them itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from trio_gateway.rawjson import NOT_JSON, decode_or_none

CONTENT_TYPE = "text/event-stream"
_CONTENT_TYPE = CONTENT_TYPE.encode()


def is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == CONTENT_TYPE


def has_events(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with these headers, whose names are in small letters, is a stream of
    events."""
    for name, value in reversed(headers):
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower() == _CONTENT_TYPE
    return False


def error_event(body: dict[str, Any], *, last_sent: bytes) -> bytes:
    """The last event of a stream that could not be completed. No `[DONE]` follows it.

    `last_sent` is what the client got last: an event cut in the middle is ended first. `body` with
    a type (those of Anthropic and of the Responses API have one) makes it an event of that name.
    """
    start = b"" if not last_sent or last_sent.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
    kind = body.get("type")
    name = b"event: %b\n" % kind.encode() if isinstance(kind, str) else b""
    return start + name + b"data: " + msgspec.json.encode(body) + b"\n\n"


def answer_as_event(body: bytes) -> bytes | None:
    """A whole answer where a stream was begun already: its JSON as the last event. None: it is not
    JSON."""
    value = decode_or_none(body)
    if value is None:
        return None
    return b"data: " + msgspec.json.encode(value) + b"\n\ndata: [DONE]\n\n"


def events(stream: bytes) -> Iterator[Any]:
    """The decoded `data:` lines of a whole stream; those that are not JSON are left out."""
    for line in stream.splitlines():
        if line.startswith(b"data:"):
            try:
                yield msgspec.json.decode(line[5:])
            except NOT_JSON:
                continue


def assembled_text(stream: bytes) -> str:
    """What the answer of a streamed chat or completion reads, without the events around it."""
    pieces: list[str] = []
    for event in events(stream):
        choices = event.get("choices") if isinstance(event, dict) else None
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                pieces += _texts_of(choice)
    return "".join(pieces)


def _texts_of(choice: dict[str, Any]) -> Iterator[str]:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        delta = {}
    for text in (delta.get("reasoning_content"), delta.get("content"), choice.get("text")):
        if isinstance(text, str):
            yield text
    if delta.get("tool_calls"):
        yield msgspec.json.encode(delta["tool_calls"]).decode() + "\n"
