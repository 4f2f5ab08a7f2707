"""OpenAI answers as Ollama's: one JSON object, or a stream of them, one per line. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.ollama.lines import (
    Durations,
    PendingCalls,
    Said,
    done_reason,
    encode,
    error_body,
    line_of,
    metrics_of,
    own_usage,
    said_by,
)
from trio_gateway.server.ollama.openai_answer import (
    EventSplitter,
    OpenAIAnswer,
    Timings,
    TokenUsage,
    decode_answer,
    error_message,
    error_text,
    output_in,
)
from trio_gateway.server.ollama.request import Kind

CONTENT_TYPE = b"application/json; charset=utf-8"
STREAM_CONTENT_TYPE = b"application/x-ndjson"

BROKEN_OFF = "the engine's answer broke off"


def rfc3339(epoch_s: float) -> str:
    """A time as Ollama writes it, in UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat().replace("+00:00", "Z")


def translate_error(body: bytes) -> bytes:
    """An error of any shape in Ollama's. The status stays as it is."""
    return error_body(error_text(body))


def load_answer(kind: Kind, model: str, created_at: str, *, unloaded: bool) -> bytes:
    """For a request that only loads or unloads the model."""
    match kind:
        case Kind.EMBED:
            return encode({"model": model, "embeddings": []})
        case Kind.EMBEDDINGS:
            return encode({"embedding": []})
        case Kind.CHAT | Kind.GENERATE:
            reason = "unload" if unloaded else "load"
            line = line_of(kind, model, created_at, Said())
            return encode(line | {"done": True, "done_reason": reason})


def translate_answer(
    kind: Kind,
    model: str,
    created_at: str,
    body: bytes,
    durations: Durations,
    dimensions: int | None = None,
) -> bytes:
    """A whole answer with status 200. `model`: as the client named it.

    Raises:
        ApiError: 502, it is not an answer.
    """
    if kind in (Kind.EMBED, Kind.EMBEDDINGS):
        return _translate_embeddings(kind, model, body, durations, dimensions)
    answer = decode_answer(body)
    choice = answer.choice if answer is not None else None
    if answer is None or choice is None:
        raise _garbage(model)
    said = said_by(choice)
    calls = PendingCalls()
    calls.add(said.calls)
    try:
        ready = calls.ready(choice.finish_reason)
    except ValueError as error:
        raise ApiError(502, f"{model}: {error}", "engine_error", code="engine_failed") from None
    line = line_of(kind, model, created_at, said, ready)
    metrics = metrics_of(answer.usage or own_usage(answer), answer.timings, durations)
    done = {"done": True, "done_reason": done_reason(choice.finish_reason)}
    return encode(line | done | metrics)


class NdjsonTranslator:
    """Server-sent events in, in any pieces; Ollama's lines out.

    Only an answer that is complete gets a last line with `"done": true`: its engine said why it
    ends, or sent `[DONE]`. Any other ends with a line that has an `error`, which clients raise.
    """

    def __init__(self, kind: Kind, model: str, created_at: str) -> None:
        self._kind, self._model, self._created_at = kind, model, created_at
        # Nearly all lines differ in their text alone, which is the last string here, and empty.
        empty = encode(line_of(kind, model, created_at, Said()) | {"done": False}) + b"\n"
        self._before_text, _, self._after_text = empty.rpartition(b'""')
        self._events = EventSplitter()
        self._calls = PendingCalls()
        self._usage: TokenUsage | None = None
        self._timings: Timings | None = None
        self._reason: str | None = None
        self._ended = False  # [DONE] came
        self._torn = False  # what came is not an event: only an error may follow
        self._failed = False  # the last line was sent, and is an error
        self.has_text = False  # something of the answer itself was sent

    @property
    def is_complete(self) -> bool:
        return not (self._failed or self._torn) and (self._ended or self._reason is not None)

    def feed(self, piece: bytes) -> bytes:
        """The lines that this piece completes, perhaps none."""
        return b"".join(map(self._translate, self._events.feed(piece)))

    def feed_waiting(self, piece: bytes) -> bytes:
        """The same, of what the gateway says before there is an answer."""
        lines = self.feed(piece)
        self.has_text = False
        return lines

    def finish(self, durations: Durations) -> bytes:
        """The stream has ended: the last line, unless an error was it."""
        lines = b"".join(map(self._translate, self._events.finish()))
        if self.is_complete:
            lines += self._flush_calls(self._reason)
        elif not self._failed:
            lines += self._fail(BROKEN_OFF)
        return lines if self._failed else lines + self._last(durations)

    def _last(self, durations: Durations) -> bytes:
        line = line_of(self._kind, self._model, self._created_at, Said())
        line |= {"done": True, "done_reason": done_reason(self._reason)}
        return encode(line | metrics_of(self._usage, self._timings, durations)) + b"\n"

    def fail(self, message: str) -> bytes:
        """The stream cannot be completed: the last line, unless there is one."""
        return b"" if self._failed else self._fail(message)

    def _fail(self, message: str, output: Sequence[str] = ()) -> bytes:
        self._failed = True
        return error_body(message, output) + b"\n"

    def _translate(self, data: bytes | None) -> bytes:
        if self._failed or self._ended:
            return b""
        if data is None:
            # A comment says that the gateway still waits. A line without text does the same.
            return self._write(Said())
        if data == b"[DONE]":
            self._ended = True
            return b""
        event = decode_answer(data)
        if event is not None and event.error is not None:
            return self._fail(error_message(event.error), output_in(event.error))
        if self._torn:
            return self._fail(BROKEN_OFF)
        if event is None:
            self._torn = True  # cut off in the middle: the gateway's error event follows
            return b""
        return self._take(event)

    def _take(self, event: OpenAIAnswer) -> bytes:
        self._usage = event.usage or own_usage(event) or self._usage
        self._timings = event.timings or self._timings
        if (choice := event.choice) is None:
            return b""
        said = said_by(choice)
        self._calls.add(said.calls)
        lines = self._write(said) if said else b""
        if choice.finish_reason is not None:
            lines += self._flush_calls(choice.finish_reason)
            self._reason = choice.finish_reason
        return lines

    def _flush_calls(self, reason: str | None) -> bytes:
        try:
            calls = self._calls.ready(reason)
        except ValueError as error:
            return self._fail(str(error))
        return self._write(Said(), calls) if calls else b""

    def _write(self, said: Said, calls: list[dict[str, Any]] | None = None) -> bytes:
        self.has_text = self.has_text or bool(said or calls)
        if not (calls or said.thinking or said.logprobs):
            return self._before_text + encode(said.content) + self._after_text
        line = line_of(self._kind, self._model, self._created_at, said, calls)
        return encode(line | {"done": False}) + b"\n"


# -- embeddings ---------------------------------------------------------------------------------


class _Embedding(msgspec.Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]
    usage: TokenUsage | None = None


def _translate_embeddings(
    kind: Kind, model: str, body: bytes, durations: Durations, dimensions: int | None
) -> bytes:
    answer = decode_or_none(body, _Embeddings)
    if answer is None:
        raise _garbage(model)
    rows = sorted(answer.data, key=lambda row: row.index)
    vectors = [_cut(row.embedding, dimensions) for row in rows]
    if kind is Kind.EMBEDDINGS:
        if not vectors:
            raise _garbage(model)
        return encode({"embedding": vectors[0]})
    metrics = metrics_of(answer.usage, None, durations)
    shown = {k: metrics[k] for k in ("total_duration", "load_duration", "prompt_eval_count")}
    return encode({"model": model, "embeddings": vectors, **shown})


def _cut(vector: list[float], dimensions: int | None) -> list[float]:
    """Shorter, and of length 1 again."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    cut = vector[:dimensions]
    length = math.hypot(*cut) or 1.0
    return [x / length for x in cut]


def _garbage(model: str) -> ApiError:
    message = f"{model}: the engine's answer cannot be read"
    return ApiError(502, message, "engine_error", code="engine_failed")
