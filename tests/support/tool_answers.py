"""Answers with a tool call, as llama-server gives them, for an engine that only replays them.

The small model of the other tests is not trained for tools: it never calls one, and llama.cpp does
not force it to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARGUMENTS = '{"city":"Paris"}'
OPENAI_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ANTHROPIC_TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": OPENAI_TOOL["function"]["parameters"],
}


def write_answers(file: Path) -> Path:
    file.write_text(json.dumps({"/v1/chat/completions": _chat(), "/v1/messages": _messages()}))
    return file


def _chat() -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": ARGUMENTS}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    base = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "engine's own name"}
    usage = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**base, "object": "chat.completion.chunk", "choices": [choice]}

    begun = {**function, "arguments": ""}
    chunks = [
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [{**call, "index": 0, "function": begun}]}),
        *(
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
            for piece in (ARGUMENTS[:6], ARGUMENTS[6:])
        ),
        chunk({}, "tool_calls"),
    ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {
        "json": {**base, "object": "chat.completion", "choices": [choice], "usage": usage},
        "events": "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n",
    }


def _messages() -> dict[str, Any]:
    block = {"type": "tool_use", "id": "call_1", "name": "get_weather"}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "engine's own name",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 40, "output_tokens": 0},
        "content": [],
    }
    piece = {"type": "input_json_delta", "partial_json": ARGUMENTS}
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {**block, "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": piece},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]
    content = [{**block, "input": json.loads(ARGUMENTS)}]
    return {
        "json": {**message, **end, "content": content},
        "events": "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events),
    }
