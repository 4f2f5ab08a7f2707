"""Requests of the Responses API as the chats that llama.cpp makes of them. Pure.

The conversion is the one of its server (server-chat.cpp, of October 2026), so that the counts are
those of the engine: tools other than functions are dropped, and what an assistant says, thinks and
calls one after the other becomes one message. Items that it refuses are counted by what is in them,
for other engines that may take them.
"""

from __future__ import annotations

from typing import Any

from trio_gateway.models.need.content_parts import (
    Json,
    as_json,
    function_call,
    objects,
    part_of,
    parts_of,
    tool_result,
)
from trio_gateway.models.need.counted_form import CountedForm, made_form

# What bears on the prompt, or on the answer's length, and is passed on as it came.
_PASSED_ON = (
    "chat_template_kwargs", "response_format", "json_schema", "reasoning_effort",
    "reasoning_format", "add_generation_prompt", "continue_final_message",
    "max_tokens", "max_completion_tokens", "n_predict",
)  # fmt: skip
_CHOICES = ("none", "auto", "required")
# Of a message, besides its role and its content.
_READ = ("name", "tool_calls", "tool_call_id", "reasoning_content")
_CALL, _OUTPUT = "_call", "_call_output"
# What says nothing to a model, or only to the one that wrote it.
_NOT_READ = frozenset({"type", "id", "call_id", "status", "encrypted_content", "result"})


def responses_as_chat(request: Json) -> CountedForm:
    messages: list[Json] = []
    if "instructions" in request:
        text = request["instructions"]
        messages.append({"role": "system", "content": text if isinstance(text, str) else ""})
    given = request.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    for item in objects(given):
        _add(messages, item)
    chat: Json = {name: request[name] for name in _PASSED_ON if name in request}
    chat["messages"] = messages
    if tools := [made for tool in objects(request.get("tools")) if (made := _tool(tool))]:
        chat["tools"] = tools
    if request.get("tool_choice") in _CHOICES:  # an object means "auto"
        chat["tool_choice"] = request["tool_choice"]
    if (most := request.get("max_output_tokens")) is not None:
        chat["max_tokens"] = most
    reasoning = request.get("reasoning")
    if isinstance(reasoning, dict) and "effort" in reasoning:
        chat["reasoning_effort"] = reasoning["effort"]
    return made_form("chat/completions", chat)


def _add(messages: list[Json], item: Json) -> None:
    kind = item.get("type")
    if kind == "function_call":
        call = function_call(item.get("call_id"), item.get("name"), _text(item.get("arguments")))
        _turn(messages).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        messages.append(tool_result(item.get("call_id"), _output(item.get("output"))))
    elif kind == "reasoning":
        _add_thoughts(messages, item)
    elif isinstance(role := item.get("role"), str):
        _add_message(messages, role, item)
    elif isinstance(kind, str):
        _add_refused(messages, kind, item)


def _add_message(messages: list[Json], role: str, item: Json) -> None:
    if role != "assistant":
        message: Json = {"role": role, "content": parts_of(item.get("content"))}
    elif not _is_turn(messages):
        message = {"role": role, "content": parts_of(item.get("content"))}
    else:
        turn = messages[-1]
        turn["content"] = [*(turn.get("content") or ()), *parts_of(item.get("content"))]
        return
    if len(item) > len(message):
        message |= {name: item[name] for name in _READ if name in item}
    messages.append(message)


def _add_thoughts(messages: list[Json], item: Json) -> None:
    """Those of a model elsewhere are encrypted, or a summary: nothing that another reads."""
    first = next(iter(objects(item.get("content"))), {})
    if isinstance(text := first.get("text"), str):
        if not _is_turn(messages):
            messages.append({"role": "assistant", "content": []})
        messages[-1]["reasoning_content"] = text


def _add_refused(messages: list[Json], kind: str, item: Json) -> None:
    if kind.endswith(_OUTPUT):
        messages.append(tool_result(item.get("call_id"), _output(item.get("output"))))
    elif kind.endswith(_CALL):
        said = {name: value for name, value in item.items() if name not in _NOT_READ}
        turn = _turn(messages)
        turn["content"] = [*(turn.get("content") or ()), part_of(said)]


def _is_turn(messages: list[Json]) -> bool:
    return bool(messages) and messages[-1].get("role") == "assistant"


def _turn(messages: list[Json]) -> Json:
    """The assistant's message that this belongs to: the last one, or a new one."""
    if not _is_turn(messages):
        messages.append({"role": "assistant"})
    return messages[-1]


def _output(value: Any) -> Any:
    if isinstance(value, list):
        return [*map(part_of, value)]
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else as_json(value)


def _tool(tool: Json) -> Json | None:
    """None: an engine does not see it."""
    if tool.get("type") != "function":
        return None
    nested = tool.get("function")
    source = nested if isinstance(nested, dict) else tool
    function: Json = {"name": source.get("name"), "parameters": source.get("parameters") or {}}
    if isinstance(description := source.get("description"), str):
        function["description"] = description
    return {"type": "function", "function": function} if isinstance(function["name"], str) else None
