"""AnswerSoFar: what has come of a stream, so that it can be ended well, or told as a whole. Pure.

Only answers with a `longest_answer` are watched so closely: each event is decoded, which takes
about 5 µs. An answer that is ended says in its API's own words that it came to its maximum; what it
has of a tool call is no complete one.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.token_events import has_token

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
UNREADABLE = "the engine sent an event that is not as its API has them"


class AnswerSoFar(abc.ABC):
    """An AnswerObserver of a stream of events.

    Args:
        model: its name, if no event says it.
        prompt: tokens of the prompt, if they were counted exactly. No number is made up otherwise.

    `tokens`: events with a part of the answer that have come, which mostly have a token each.
    `error`: that of an event which is one.
    """

    def __init__(self, model: str, prompt: int | None) -> None:
        self.model, self.prompt = model, prompt
        self.tokens = 0
        self.error: Json | None = None
        self._held: list[bytes] = []  # of an event without its end

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._held = []

    def completes(self) -> None:
        self._held = []

    def continues(self, piece: bytes) -> None:
        if b"\n" not in piece:  # a long line is not joined anew with each of its pieces
            self._held.append(piece)
            return
        text = b"".join((*self._held, piece)).replace(b"\r\n", b"\n")
        *events, rest = text.split(b"\n\n")
        self._held = [rest] if rest else []
        for event in events:
            lines = event.split(b"\n")
            data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
            value = decode_or_none(data, dict[str, Any]) if data else None
            if value is not None:
                self.tokens += has_token(value)
                if isinstance(value.get("error"), dict):
                    self.error = value["error"]
                try:
                    self.take(value)
                except (AttributeError, IndexError, KeyError, TypeError):  # of no such shape
                    # A stream goes on: its client judges it. What is put together would lack this.
                    self.error = {"message": UNREADABLE, "code": 502}

    @property
    def is_between_events(self) -> bool:
        return not self._held

    @abc.abstractmethod
    def take(self, event: Json) -> None:
        """The next event's data."""

    @abc.abstractmethod
    def ending(self) -> bytes:
        """Events that end the stream."""

    @abc.abstractmethod
    def whole(self) -> bytes:
        """The answer as if it had not been streamed; that it came to its maximum, if it is not
        complete."""

    def usage(self, prompt: str, completion: str) -> Json:
        """Under these names; empty if the prompt's tokens are not known."""
        if self.prompt is None:
            return {}
        total = self.prompt + self.tokens
        return {prompt: self.prompt, completion: self.tokens, "total_tokens": total}


def reason_of(after_s: float | None) -> str:
    """Why an answer was ended, in a line."""
    return (
        f"the answer was ended after {after_s or 0.0:.0f} s (longest_answer): others wait for its "
        "place"
    )


def ending_of(so_far: AnswerSoFar, after_s: float | None) -> bytes:
    """A comment that says why, and the events that end the stream."""
    return f": {reason_of(after_s)}\n\n".encode() + so_far.ending()


def data_event(value: Json, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(value) + b"\n\n"


def merge(into: Json, delta: Json) -> None:
    """Texts and lists go on; the rest is replaced."""
    for name, value in delta.items():
        known = into.get(name)
        if isinstance(known, str) and isinstance(value, str) and name not in _NAMES:
            into[name] = known + value
        elif isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif isinstance(known, dict) and isinstance(value, dict):
            merge(known, value)
        elif value is not None or name not in into:
            into[name] = value


_NAMES = frozenset({"role", "id", "type", "name"})  # which come whole, and perhaps again


class CompletionSoFar(AnswerSoFar):
    """Of `/v1/completions`, and of chats in `ChatSoFar`."""

    name = "text_completion"
    chunk_name = "text_completion"

    def __init__(self, model: str, prompt: int | None, *, with_usage: bool) -> None:
        super().__init__(model, prompt)
        self._with_usage = with_usage
        self._frame: Json = {"id": "", "created": int(time.time()), "model": model}
        self._choices: dict[int, Json] = {}
        self._said: Json = {}  # usage and timings

    def take(self, event: Json) -> None:
        for name in ("id", "created", "model", "system_fingerprint"):
            if name in event:
                self._frame[name] = event[name]
        self._said |= {n: event[n] for n in ("usage", "timings") if event.get(n)}
        for choice in event.get("choices") or ():
            index = choice.get("index", 0)
            known = self._choices.setdefault(index, self.new_choice(index))
            self.add(known, choice)
            if choice.get("logprobs"):
                merge(known, {"logprobs": choice["logprobs"]})
            known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]

    def new_choice(self, index: int) -> Json:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": None}

    def add(self, known: Json, choice: Json) -> None:
        known["text"] += choice.get("text") or ""

    def end_of(self, index: int) -> Json:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}

    def ending(self) -> bytes:
        frame = {**self._frame, "object": self.chunk_name}
        choices = self._choices or {0: self.new_choice(0)}
        ends = [self.end_of(i) for i, c in choices.items() if c["finish_reason"] is None]
        events = [data_event({**frame, "choices": [end]}) for end in ends]
        usage = self.usage("prompt_tokens", "completion_tokens")
        if self._with_usage and usage and "usage" not in self._said:
            events.append(data_event({**frame, "choices": [], "usage": usage}))
        return b"".join(events) + DONE

    def whole(self) -> bytes:
        choices = self._choices or {0: self.new_choice(0)}
        for choice in choices.values():
            choice["finish_reason"] = choice["finish_reason"] or "length"
        frame = {**self._frame, "object": self.name}
        usage = self.usage("prompt_tokens", "completion_tokens")
        said = {**({"usage": usage} if usage else {}), **self._said}
        ordered = [choices[index] for index in sorted(choices)]
        return msgspec.json.encode({"choices": ordered, **frame, **said})


class ChatSoFar(CompletionSoFar):
    """Of `/v1/chat/completions`."""

    name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def new_choice(self, index: int) -> Json:
        message = {"role": "assistant", "content": None}
        return {"index": index, "message": message, "finish_reason": None}

    def add(self, known: Json, choice: Json) -> None:
        message, delta = known["message"], {**(choice.get("delta") or {})}
        for call in delta.pop("tool_calls", None) or ():
            calls = message.setdefault("tool_calls", [])
            number = call.get("index", len(calls))
            if number == len(calls):
                calls.append({})
            merge(calls[number], {n: v for n, v in call.items() if n != "index"})
        merge(message, delta)

    def end_of(self, index: int) -> Json:
        return {"index": index, "delta": {}, "finish_reason": "length"}


class NativeSoFar(AnswerSoFar):
    """Of llama.cpp's own `/completion` and `/infill`.

    Args:
        with_ids: the client wants the ids of the tokens, which are in all events of a stream.
    """

    def __init__(self, model: str, prompt: int | None, *, with_ids: bool = False) -> None:
        super().__init__(model, prompt)
        self._with_ids = with_ids
        self._content = ""
        self._ids: list[int] = []
        self._probabilities: list[Json] = []
        self._last: Json = {}

    def take(self, event: Json) -> None:
        self._content += event.get("content") or ""
        self._ids += event.get("tokens") or []
        self._probabilities += event.get("completion_probabilities") or []
        self._last = event

    def _end(self) -> Json:
        known = {"index": 0, "tokens_predicted": self.tokens}
        if self.prompt is not None:
            known["tokens_evaluated"] = self.prompt
        names = ("index", "id_slot", "tokens_predicted", "tokens_evaluated")
        return {
            **known, **{name: self._last[name] for name in names if name in self._last},
            "content": "", "tokens": [], "model": self.model, "truncated": False,
            "stop": True, "stop_type": "limit", "stopping_word": "",
        }  # fmt: skip

    def ending(self) -> bytes:
        return data_event(self._end())

    def whole(self) -> bytes:
        last = self._last if self._last.get("stop") else self._end()
        said: Json = {"content": self._content, "tokens": self._ids if self._with_ids else []}
        if self._probabilities:
            said["completion_probabilities"] = self._probabilities
        return msgspec.json.encode({**last, **said})
