"""What Ollama's answers are made of: texts, tool calls, numbers, and lines of JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.ollama.openai_answer import (
    Choice,
    Message,
    OpenAIAnswer,
    Timings,
    TokenUsage,
    ToolCall,
)
from trio_gateway.server.ollama.request import Kind

# Ollama knows "stop", "length", "load" and "unload".
_REASONS = {"tool_calls": "stop", "function_call": "stop"}


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway measured, in seconds. An engine that reports its own times overrides the
    last two: `prompt_s` until the first token, `answer_s` from there on."""

    total_s: float
    load_s: float = 0.0
    prompt_s: float = 0.0
    answer_s: float = 0.0


def done_reason(finish_reason: str | None) -> str:
    return _REASONS.get(finish_reason or "stop", finish_reason or "stop")


def error_body(message: str, output: Sequence[str] = ()) -> bytes:
    """`output`: an engine's last lines, which the message may point to."""
    return encode({"error": message} | ({"engine_output": [*output]} if output else {}))


# -- what a choice says -------------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True):
    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: list[Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.logprobs)


def said_by(choice: Choice) -> Said:
    message = choice.delta or choice.message or Message()
    logprobs = choice.logprobs.get("content") if isinstance(choice.logprobs, dict) else None
    return Said(
        content=choice.text or message.content or "",
        thinking=message.reasoning_content or message.reasoning or "",
        calls=tuple(message.tool_calls or ()),
        logprobs=logprobs if isinstance(logprobs, list) and logprobs else None,
    )


def line_of(
    kind: Kind,
    model: str,
    created_at: str,
    said: Said,
    calls: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    line: dict[str, Any] = {"model": model, "created_at": created_at}
    thinking = {"thinking": said.thinking} if said.thinking else {}
    if kind is Kind.CHAT:
        line["message"] = {"role": "assistant", "content": said.content, **thinking}
        if calls:
            line["message"]["tool_calls"] = calls
    else:
        line |= {"response": said.content, **thinking}
    if said.logprobs:
        line["logprobs"] = said.logprobs
    return line


class PendingCalls:
    """Tool calls as their parts come. Ollama has them whole, their arguments as an object."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, str, list[str]]] = {}  # id, name, arguments

    def add(self, parts: tuple[ToolCall, ...]) -> None:
        for position, part in enumerate(parts):
            index = position if part.index is None else part.index
            call_id, name, arguments = self._calls.get(index, ("", "", []))
            if (function := part.function) is not None:
                name += function.name or ""
                if isinstance(function.arguments, dict):
                    arguments.append(msgspec.json.encode(function.arguments).decode())
                elif function.arguments:
                    arguments.append(function.arguments)
            self._calls[index] = (part.id or call_id, name, arguments)

    def ready(self, reason: str | None) -> list[dict[str, Any]]:
        """The calls, once. Those that the answer's limit has cut are left out.

        Raises:
            ValueError: the arguments of one are not a JSON object.
        """
        calls = []
        pending, self._calls = sorted(self._calls.items()), {}
        for index, (call_id, name, pieces) in pending:
            arguments = decode_or_none("".join(pieces) or "{}", dict[str, Any])
            if arguments is None:
                if reason == "length":
                    continue
                raise ValueError(f"the arguments of the call to {name} are not an object")
            function = {"index": index, "name": name, "arguments": arguments}
            calls.append(({"id": call_id} if call_id else {}) | {"function": function})
        return calls


# -- numbers ------------------------------------------------------------------------------------


def own_usage(answer: OpenAIAnswer) -> TokenUsage | None:
    """Of llama.cpp's own answers."""
    if answer.tokens_predicted is None or not answer.stop:
        return None
    return TokenUsage(answer.tokens_evaluated, answer.tokens_predicted)


def metrics_of(
    usage: TokenUsage | None, timings: Timings | None, durations: Durations
) -> dict[str, int]:
    usage, timings = usage or TokenUsage(), timings or Timings()
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    if prompt is None and timings.prompt_n is not None:
        prompt = timings.prompt_n + (timings.cache_n or 0)
    prompt_s, answer_s = durations.prompt_s, durations.answer_s
    if timings.prompt_ms is not None:
        prompt_s = timings.prompt_ms / 1000
    if timings.predicted_ms is not None:
        answer_s = timings.predicted_ms / 1000
    return {
        "total_duration": _ns(durations.total_s),
        "load_duration": _ns(durations.load_s),
        "prompt_eval_count": prompt or 0,
        "prompt_eval_duration": _ns(prompt_s),
        "eval_count": (timings.predicted_n if answer is None else answer) or 0,
        "eval_duration": _ns(answer_s),
    }


def _ns(seconds: float) -> int:
    return max(round(seconds * 1e9), 0) if math.isfinite(seconds) else 0


# What JSON leaves as it is, and clients that read text by lines take for the end of one.
_LINE_ENDS = (("\u0085", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))


def encode(value: object) -> bytes:
    line = msgspec.json.encode(value)
    if not line.isascii():
        for character, escaped in _LINE_ENDS:
            line = line.replace(character.encode(), escaped)
    return line
