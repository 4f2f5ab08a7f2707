"""What an OpenAI answer or one event of its stream says, as far as a translation needs it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from trio_gateway.rawjson import NOT_JSON, decode_or_none

TEXT_OF_AN_ERROR = 500  # characters


class Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """Whole, or in a stream a part of the call at `index`."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct, frozen=True):
    """`reasoning`: how vLLM names what llama.cpp calls `reasoning_content`."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct, frozen=True):
    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class TokenUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Timings(msgspec.Struct, frozen=True):
    """llama.cpp's. `cache_n`: prompt tokens that did not have to be processed again."""

    cache_n: int | None = None
    prompt_n: int | None = None
    prompt_ms: float | None = None
    predicted_n: int | None = None
    predicted_ms: float | None = None


class OpenAIAnswer(msgspec.Struct, frozen=True):
    """A whole answer, or one event. `content`, `stop`, …: llama.cpp's own, of `/infill`."""

    choices: list[Choice] | None = None
    usage: TokenUsage | None = None
    timings: Timings | None = None
    error: Any = None
    content: str | None = None
    stop: bool | None = None
    stop_type: str | None = None
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = None

    @property
    def choice(self) -> Choice | None:
        """The first: the gateway asks for one only. One made of it, if it is llama.cpp's own."""
        if self.choices is None and self.content is not None:
            reason = "length" if self.stop_type == "limit" else "stop"
            return Choice(text=self.content, finish_reason=reason if self.stop else None)
        for choice in self.choices or ():
            if choice.index == 0:
                return choice
        return None


def decode_answer(data: bytes) -> OpenAIAnswer | None:
    """None: not a JSON object, or one whose fields have other types."""
    return decode_or_none(data, OpenAIAnswer)


def error_text(body: bytes) -> str:
    """The message of an error, whatever its shape."""
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        return body[:TEXT_OF_AN_ERROR].decode("utf-8", "replace").strip() or "no reason was given"
    if isinstance(value, dict):
        value = next((value[k] for k in ("error", "message", "detail") if value.get(k)), value)
    return error_message(value)


def error_message(error: object) -> str:
    """Of the value of `error`."""
    if isinstance(error, dict) and isinstance(message := error.get("message"), str) and message:
        return message
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    return text[:TEXT_OF_AN_ERROR]


def output_in(error: object) -> list[str]:
    """An engine's last lines in the value of `error`, where the gateway has put them."""
    lines = error.get("engine_output") if isinstance(error, dict) else None
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


class EventSplitter:
    """Takes a stream of server-sent events in any pieces, and gives the data of each event."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line; joined once its end is there
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """The data of each event that is whole now; None for each comment."""
        if b"\n" not in piece:
            self._rest.append(piece)
            return
        *lines, rest = b"".join((*self._rest, piece)).split(b"\n")
        self._rest = [rest]
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b":"):
                yield None
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data

    def finish(self) -> Iterator[bytes | None]:
        """What the end of the stream leaves: engines may omit the last empty line."""
        yield from self.feed(b"\n\n")
