"""A chat with nothing in it but what an engine reads, to be counted in place of the real one. Pure.

llama.cpp's server refuses a chat for one tool or part of a kind that it does not know, and with it
the question how many tokens the chat has. Other engines may drop it, or take it. So tools that are
not functions are left out, and parts that are not text are counted by the text in them; media are
left out as well, which engines count as a mark, whatever they become. The real chat goes to the
engine as it came.
"""

from __future__ import annotations

from typing import Any

from trio_gateway.models.need.content_parts import Json, as_json, function_call, part_of
from trio_gateway.models.need.contents import MEDIA_KEYS, is_media

_CHOICES = ("none", "auto", "required")
# What must be a text, if it is there.
_TEXTS = ("reasoning_content", "name", "tool_call_id")


def readable_messages(messages: Any) -> Any:
    """The same object, if all of it can be read."""
    if not isinstance(messages, list):
        return messages
    made = [_message(m) if isinstance(m, dict) else m for m in messages]
    return messages if all(map(_is, made, messages)) else made


def readable_tools(tools: Any) -> Any:
    """The same object, if all of it can be read; None: nothing of it."""
    if not isinstance(tools, list):
        return None
    if all(map(_is_tool, tools)):
        return tools
    return [_tool(tool) for tool in tools if _is_function(tool)] or None


def readable_choice(choice: Any) -> Any:
    """Of a tool; None: none that engines have a word for. An object means "auto" to them."""
    return None if isinstance(choice, str) and choice not in _CHOICES else choice


def _is(one: object, other: object) -> bool:
    return one is other


def _message(message: Json) -> Json:
    content, calls = message.get("content"), message.get("tool_calls")
    changed: Json = {}
    if isinstance(content, dict):
        changed["content"] = _texts_in([content])
    elif isinstance(content, list):
        if not all(map(_is_text, content)):
            changed["content"] = _texts_in(content)
    elif "content" not in message and message.get("role") != "assistant":
        changed["content"] = ""
    if isinstance(calls, list) and not all(map(_is_call, calls)):
        changed["tool_calls"] = [_call(c) for c in calls if isinstance(c, dict)]
    if changed:
        message = {**message, **changed}
    if None in message.values() or not MEDIA_KEYS.isdisjoint(message):
        message = _without_nulls(message)
    return message


def _texts_in(parts: list[Any]) -> list[Json]:
    return [part_of(part) for part in parts if not (isinstance(part, dict) and is_media(part))]


def _without_nulls(message: Json) -> Json:
    """Engines take one in place of a content and nowhere else; and without media next to it."""
    kept = {
        name: value
        for name, value in message.items()
        if name not in MEDIA_KEYS and not (value is None and name in _TEXTS)
    }
    return message if len(kept) == len(message) else kept


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _is_function(value: Any) -> bool:
    """Of a tool, or of a call of one."""
    if not isinstance(value, dict) or value.get("type") != "function":
        return False
    function = value.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _is_tool(tool: Any) -> bool:
    return _is_function(tool) and isinstance(tool["function"].get("description", ""), str)


def _tool(tool: Json) -> Json:
    if _is_tool(tool):
        return tool
    return {**tool, "function": {**tool["function"], "description": ""}}


def _is_call(call: Any) -> bool:
    return _is_function(call) and call["function"].get("arguments") is not None


def _call(call: Json) -> Json:
    """Of a custom tool: {"type": "custom", "custom": {"name": …, "input": …}}."""
    if _is_call(call):
        return call
    kind = call.get("type")
    said = call.get(kind) if isinstance(kind, str) else call.get("function")
    if not isinstance(said, dict):
        said = {name: value for name, value in call.items() if name not in ("id", "type")}
    name, arguments = said.get("name"), said.get("arguments")
    if not isinstance(arguments, str):
        rest = {k: v for k, v in said.items() if k != "name" and v is not None}
        arguments = as_json(rest)
    return function_call(call.get("id"), name if isinstance(name, str) else "", arguments)
