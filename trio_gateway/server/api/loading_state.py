"""Sentences of a request that waits, in its stream as what a model thinks. Pure.

Chat pages show no comments of a stream, but they show thoughts: of a chat completion as
`reasoning_content`, which Ollama's translation makes `thinking` of, and of a message as a block of
its own, which is closed before the answer begins. The engine's message then goes on in the one that
was begun: without a beginning of its own, and its blocks come after that one.

What clients send back of it is taken out again, so that no model reads it: `without_sentences`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from trio_gateway.rawjson import Members, members_or_none, replace_member
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.keepalive import WaitingEvents, comment

SPEAKER = "trio-gateway: "  # begins each sentence, as it is no thought of the model
END = "\n\n"  # of a sentence; pages show thoughts as Markdown

_CHAT, _MESSAGES = "chat/completions", "messages"
_EVENT = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"(?m)^data: ?(.*?)\r?$")
_BLOCK_EVENTS = ("content_block_start", "content_block_delta", "content_block_stop")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # fields of messages and of blocks


def can_reason(endpoint: Endpoint) -> bool:
    """Whether its streams have a place for thoughts. Those of Responses have one as well, but what
    is there becomes a part of the conversation that clients send back."""
    return endpoint.name in (_CHAT, _MESSAGES)


def reasoning_events(
    endpoint: Endpoint,
    model: str,
    request_id: str,
    created: int,
    signs: WaitingEvents | None = None,
) -> WaitingEvents:
    """For one stream, in the words of its API. `created`: seconds since 1970. `signs`: of life,
    where there is nothing new to say; None: comments."""
    if endpoint.name == _MESSAGES:
        return _MessageEvents(model, request_id, signs)
    return _ChatEvents(model, request_id, created, signs)


def may_have_sentences(messages: bytes) -> bool:
    return SPEAKER.encode() in messages


def without_sentences(messages: Any) -> Any:
    """The decoded messages of a request with nothing of what was said in the name of the model
    while an earlier request waited; a block that had nothing else is left out. What users say is
    left alone."""
    if not isinstance(messages, list):
        return messages
    return [_cleaned(message) if isinstance(message, dict) else message for message in messages]


def _cleaned(message: dict[str, Any]) -> dict[str, Any]:
    cleaned = _own_thoughts(message)
    if isinstance(content := cleaned.get("content"), list):
        blocks = [_own_thoughts(part) if isinstance(part, dict) else part for part in content]
        pairs = zip(blocks, content, strict=True)
        left = [block for block, before in pairs if block is before or not _is_empty(block)]
        if content and not left:
            left = [{"type": "text", "text": ""}]
        cleaned = {**cleaned, "content": left}
    return cleaned


def _own_thoughts(said: dict[str, Any]) -> dict[str, Any]:
    """With what its model thought itself; the same object, if that is all."""
    found = {name: said[name] for name in _THOUGHTS if _begins_with_sentence(said.get(name))}
    if not found:
        return said
    return said | {name: _after_sentences(text) for name, text in found.items()}


def _is_empty(block: dict[str, Any]) -> bool:
    return not any(block.get(name) for name in _THOUGHTS)


def _begins_with_sentence(text: Any) -> bool:
    return isinstance(text, str) and text.startswith(SPEAKER)


def _after_sentences(text: str) -> str:
    while text.startswith(SPEAKER):
        text = text.partition(END)[2]  # of the last one a client may have taken off the end
    return text


class _Said:
    """What was said last is not said again: a sign of life is enough."""

    def __init__(self, signs: WaitingEvents | None) -> None:
        self._signs, self._last = signs, ""

    def is_news(self, sentence: str) -> bool:
        last, self._last = self._last, sentence
        return sentence != last

    def sign(self, sentence: str) -> bytes:
        return comment(sentence) if self._signs is None else self._signs.next(sentence)


class _ChatEvents:
    def __init__(
        self, model: str, request_id: str, created: int, signs: WaitingEvents | None
    ) -> None:
        self._said, self.has_comments = _Said(signs), signs is None
        self._chunk: dict[str, Any] = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }

    def next(self, sentence: str) -> bytes:
        if not self._said.is_news(sentence):
            return self._said.sign(sentence)
        delta = {"reasoning_content": f"{SPEAKER}{sentence}{END}"}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return b"data: %b\n\n" % msgspec.json.encode({**self._chunk, "choices": [choice]})

    def close(self) -> bytes:
        return b""

    def continues(self, piece: bytes, *, is_last: bool) -> bytes:
        return piece


class _MessageEvents:
    def __init__(self, model: str, request_id: str, signs: WaitingEvents | None) -> None:
        self._said, self.has_comments = _Said(signs), signs is None
        self._model, self._id = model, request_id
        self._is_open = self._is_begun = False
        self._held: list[bytes] = []  # of an event
        self._usage: Members = {}

    def next(self, sentence: str) -> bytes:
        if not self._said.is_news(sentence):
            return self._said.sign(sentence)
        begun, self._is_begun, self._is_open = self._is_begun, True, True
        delta = {"type": "thinking_delta", "thinking": f"{SPEAKER}{sentence}{END}"}
        return (b"" if begun else self._beginning()) + _event(
            {"type": "content_block_delta", "index": 0, "delta": delta}
        )

    def _beginning(self) -> bytes:
        message: dict[str, Any] = {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        block = {"type": "thinking", "thinking": "", "signature": ""}
        return _event({"type": "message_start", "message": message}) + _event(
            {"type": "content_block_start", "index": 0, "content_block": block}
        )

    def close(self) -> bytes:
        if not self._is_open:
            return b""
        self._is_open = False
        return _event({"type": "content_block_stop", "index": 0})

    def continues(self, piece: bytes, *, is_last: bool) -> bytes:
        if not self._is_begun:
            return piece
        text = b"".join((*self._held, piece)) if self._held else piece
        made, at = list[bytes](), 0
        for end in _EVENT.finditer(text):
            made.append(self._continued(text[at : end.end()]))
            at = end.end()
        self._held = [] if is_last or at == len(text) else [text[at:]]
        return b"".join(made) + (text[at:] if is_last else b"")

    def _continued(self, event: bytes) -> bytes:
        found = _DATA.search(event)
        known = None if found is None else members_or_none(found[1])
        if found is None or known is None:
            return event
        data, kind = found[1], _text(known.get("type"))
        if kind == "message_start":
            self._usage = _inner(_inner(known, "message"), "usage")
            return b""
        if kind in _BLOCK_EVENTS:
            index = b"%d" % (_number(known.get("index")) + 1)
            data = replace_member(data, "index", index, known)
        elif kind == "message_delta" and self._usage:
            # What the engine's own beginning would have said: clients take the later numbers.
            usage = msgspec.json.encode({**self._usage, **_inner(known, "usage")})
            data = replace_member(data, "usage", usage, known)
        return event[: found.start(1)] + data + event[found.end(1) :]


def _inner(members: Members, name: str) -> Members:
    """Of the object that this member is; empty if it is not one."""
    raw = members.get(name)
    found = None if raw is None else members_or_none(bytes(raw))
    return {} if found is None else found


def _text(raw: msgspec.Raw | None) -> str:
    return bytes(raw).strip(b'"').decode(errors="replace") if raw is not None else ""


def _number(raw: msgspec.Raw | None) -> int:
    text = bytes(raw) if raw is not None else b""
    return int(text) if text.isdigit() else 0


def _event(data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), msgspec.json.encode(data))
