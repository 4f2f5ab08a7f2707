"""What a stream gets while it waits: comments, or events without content in its API's words. Pure.

Each event is one that the API's own clients take at the beginning of an answer: what they make of a
stream is the same with and without them.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec

from trio_gateway.server.api.endpoint import Endpoint

_RESPONSE_ID = re.compile(rb'"response"\s*:\s*\{\s*"id"\s*:\s*("[^"\\]*")')
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'  # Anthropic's own


def comment(text: str) -> bytes:
    """Of server-sent events: clients skip it."""
    return f": {text}\n\n".encode()


class WaitingEvents(Protocol):
    """Events of one answer: `next` while it waits, with what it waits for, and `close` once it does
    no longer; then each piece of it goes through `continues`. `has_comments`: there may be comments
    between them as well."""

    has_comments: bool

    def next(self, sentence: str, /) -> bytes: ...

    def close(self) -> bytes: ...

    def continues(self, piece: bytes, /, *, is_last: bool) -> bytes: ...


class KeepaliveEvents:
    """Those without content. `created`: seconds since 1970."""

    has_comments = False

    def __init__(self, endpoint: Endpoint, model: str, request_id: str, created: int) -> None:
        self._name, self._model = endpoint.name, model
        self._id, self._created = request_id, created
        self._sent = 0
        self._engines_id: bytes | None = None
        self._held = b""  # of a line

    def next(self, sentence: str) -> bytes:
        sent, self._sent = self._sent, self._sent + 1
        match self._name:
            case "messages":
                return _PING
            case "responses":
                return self._of_responses(sent)
            case "completion" | "infill":
                return _event({"index": 0, "content": "", "tokens": [], "stop": False})
            case "completions":
                return self._chunk("cmpl-", "text_completion", {"text": "", "logprobs": None})
        return self._chunk("chatcmpl-", "chat.completion.chunk", {"delta": {}})

    def close(self) -> bytes:
        return b""

    def continues(self, piece: bytes, *, is_last: bool) -> bytes:
        """A piece of the engine's stream. A response has one id from its first event on, and
        OpenAI's clients insist on it: the engine's becomes the one that was sent already."""
        if self._name != "responses" or not self._sent:
            return piece
        text, self._held = self._held + piece, b""
        if not is_last:
            end = text.rfind(b"\n") + 1
            text, self._held = text[:end], text[end:]
        if self._engines_id is None and (found := _RESPONSE_ID.search(text)) is not None:
            self._engines_id = found[1]
        if self._engines_id is None:
            return text
        return text.replace(self._engines_id, msgspec.json.encode(f"resp_{self._id}"))

    def _chunk(self, prefix: str, kind: str, content: dict[str, Any]) -> bytes:
        choice = {"index": 0, **content, "finish_reason": None}
        chunk = {
            "id": prefix + self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": [choice],
        }
        return _event(chunk)

    def _of_responses(self, sent: int) -> bytes:
        """Nothing may come before `response.created`. The engine's own follows it."""
        response = {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": "in_progress",
            "model": self._model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        kind = "response.in_progress" if sent else "response.created"
        event = {"type": kind, "sequence_number": sent, "response": response}
        return b"event: %b\n" % kind.encode() + _event(event)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
