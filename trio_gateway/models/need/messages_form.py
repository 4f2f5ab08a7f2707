"""Requests of Anthropic's Messages API as the chats that llama.cpp makes of them. Pure.

The conversion is the one of its server (server-chat.cpp, of October 2026), so that the counts are
those of the engine: blocks of a kind that it does not know are dropped, and every tool becomes a
function, those with a type of Anthropic's own as well.
"""

from __future__ import annotations

import re
from typing import Any

from trio_gateway.models.need.content_parts import (
    IMAGE,
    Json,
    as_json,
    function_call,
    objects,
    tool_result,
)
from trio_gateway.models.need.counted_form import CountedForm, made_form

_BILLING = "x-anthropic-billing-header:"
_SUM = re.compile(r"(?s)\A(.*?cch=).{5}(?=;)")
_CHOICES = {"auto": "auto", "any": "required", "tool": "required"}


def messages_as_chat(request: Json) -> CountedForm:
    messages: list[Json] = []
    if (system := request.get("system")) is not None:
        text = "".join(map(_with_constant_sum, _texts(system)))
        messages.append({"role": "system", "content": text})
    for message in objects(request.get("messages")):
        _add(messages, message)
    chat: Json = {"messages": messages, "max_tokens": request.get("max_tokens")}
    if tools := [*map(_tool, objects(request.get("tools")))]:
        chat["tools"] = tools
    choice = request.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(kind, str) and kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    if (kwargs := request.get("chat_template_kwargs")) is not None:
        chat["chat_template_kwargs"] = kwargs
    return made_form("chat/completions", chat)


def _add(messages: list[Json], message: Json) -> None:
    """One message of Anthropic's may be several: each tool's result is one of its own. One in which
    nothing is left is none."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(content, list):
        if "content" in message or role != "assistant":
            messages.append({"role": role, "content": content})
        return
    parts: list[Json] = []
    calls: list[Json] = []
    results: list[Json] = []
    thoughts: list[str] = []
    for block in objects(content):
        kind = block.get("type")
        if kind == "text":
            parts.append({"type": "text", "text": _text(block.get("text"))})
        elif kind == "image" and _is_shown(block):
            parts.append(IMAGE)
        elif kind == "tool_use":
            given = block.get("input")
            arguments = as_json({} if given is None else given)
            calls.append(function_call(block.get("id"), block.get("name"), arguments))
        elif kind == "tool_result":
            results.append(tool_result(block.get("tool_use_id"), _result(block.get("content"))))
        elif kind == "thinking":
            thoughts.append(_text(block.get("thinking")))
    thought = "".join(thoughts)
    if parts or calls or thought:
        made: Json = {"role": role, "content": parts or ""}
        if calls:
            made["tool_calls"] = calls
        if thought:
            made["reasoning_content"] = thought
        messages.append(made)
    messages += results


def _result(content: Any) -> Any:
    """A text, unless there are images in it."""
    blocks = objects(content)
    if not any(block.get("type") == "image" for block in blocks):
        return _joined(content)
    return [
        IMAGE if kind == "image" else {"type": "text", "text": _text(block.get("text"))}
        for block in blocks
        if (kind := block.get("type")) == "text" or (kind == "image" and _is_shown(block))
    ]


def _is_shown(image: Json) -> bool:
    """One that is somewhere in a file of Anthropic's is dropped."""
    source = image.get("source")
    return isinstance(source, dict) and source.get("type") in ("base64", "url")


def _with_constant_sum(text: str) -> str:
    """llama.cpp makes the checksum in Claude Code's billing line the same in all requests."""
    return _SUM.sub(r"\g<1>fffff", text, count=1) if text.startswith(_BILLING) else text


def _joined(content: Any) -> str:
    """The text of a text, or of blocks."""
    return "".join(_texts(content))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [_text(block.get("text")) for block in objects(content) if block.get("type") == "text"]


def _tool(tool: Json) -> Json:
    function = {
        "name": _text(tool.get("name")),
        "description": _text(tool.get("description")),
        "parameters": tool.get("input_schema") or {},
    }
    return {"type": "function", "function": function}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
