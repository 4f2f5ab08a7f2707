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
    if all(map(_is_function, tools)):
        return tools
    return [tool for tool in tools if _is_function(tool)] or None


def _is(one: object, other: object) -> bool:
    return one is other


def _message(message: Json) -> Json:
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list) and not all(map(_is_text, content)):
        parts = [part for part in content if not (isinstance(part, dict) and is_media(part))]
        message = {**message, "content": [*map(part_of, parts)]}
    if isinstance(calls, list) and not all(map(_is_function, calls)):
        message = {**message, "tool_calls": [_call(c) for c in calls if isinstance(c, dict)]}
    if not MEDIA_KEYS.isdisjoint(message):
        message = {name: value for name, value in message.items() if name not in MEDIA_KEYS}
    return message


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


def _call(call: Json) -> Json:
    """Of a custom tool: {"type": "custom", "custom": {"name": …, "input": …}}."""
    if _is_function(call):
        return call
    kind = call.get("type")
    said = call.get(kind) if isinstance(kind, str) else call.get("function")
    if not isinstance(said, dict):
        said = {name: value for name, value in call.items() if name not in ("id", "type")}
    name = said.get("name")
    arguments = said.get("arguments")
    if not isinstance(arguments, str):
        arguments = as_json({key: value for key, value in said.items() if key != "name"})
    return function_call(call.get("id"), name if isinstance(name, str) else "", arguments)
