"""A chat as clients send it, put into the shape in which llama.cpp shows it to a template."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from trio_gateway.models.counting.refusal import CannotCount

Message = dict[str, Any]

_PASSED_ON = ("reasoning_content", "name", "tool_call_id")
# What a client must not set next to the messages, or what sets other variables in turn.
_NOT_A_CLIENTS = frozenset({"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"})
# How templates call what llama.cpp calls `preserve_reasoning`: the thoughts of earlier answers stay
# in the prompt. And what they call its opposite.
_KEEPS_THOUGHTS = ("preserve_thinking",)
_DROPS_THOUGHTS = ("clear_thinking", "truncate_history_thinking", "drop_thinking")


class Chat(msgspec.Struct, frozen=True):
    """The part of a request's body that the template gets to see."""

    messages: list[Message]
    tools: list[Message] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    json_schema: Any = None

    @property
    def ends_with_an_answer(self) -> bool:
        """The model is to go on with the assistant's last message."""
        return bool(self.messages) and self.messages[-1].get("role") == "assistant"


def template_kwargs(chat: Chat, defaults: dict[str, Any]) -> dict[str, Any]:
    """The variables that the client sets, over those that the engine was started with.

    Raises:
        CannotCount: the engine has uses of its own for them.
    """
    kwargs = {**defaults, **(chat.chat_template_kwargs or {})}
    if _NOT_A_CLIENTS & kwargs.keys() or not isinstance(kwargs.get("enable_thinking", True), bool):
        raise CannotCount("chat_template_kwargs has keys that engines do not take from clients")
    if chat.continue_final_message and (chat.add_generation_prompt or not chat.ends_with_an_answer):
        raise CannotCount("continue_final_message needs an answer to continue, and no new one")
    if chat.reasoning_effort == "none":
        kwargs.pop("reasoning_effort", None)
        kwargs.setdefault("enable_thinking", False)
    elif chat.reasoning_effort:
        kwargs["reasoning_effort"] = chat.reasoning_effort
    if isinstance(effort := kwargs.get("reasoning_effort"), str):
        kwargs.setdefault("reasoning_strength", effort)
    if not isinstance(kwargs.get("preserve_reasoning", True), bool):
        del kwargs["preserve_reasoning"]
    return kwargs


def preserving(keeps: bool) -> Message:
    """The variables that tell a template whether thoughts of earlier answers stay."""
    return dict.fromkeys(_KEEPS_THOUGHTS, keeps) | dict.fromkeys(_DROPS_THOUGHTS, not keeps)


def asked_schema(chat: Chat) -> Any:
    """The JSON schema that the answer is to follow; None: there is none."""
    form = chat.response_format or {}
    match form.get("type"):
        case "json_object":
            has_own = "schema" in form or not chat.json_schema
            schema = form.get("schema", {}) if has_own else chat.json_schema
        case "json_schema":
            schema = (form.get("json_schema") or {}).get("schema", {})
        case _:
            schema = chat.json_schema
    return {"type": "object"} if schema == {} else schema


def shape_message(
    message: Message,
    *,
    takes_texts: bool,
    takes_parts: bool,
    arguments_as_objects: bool,
    knows_developers: bool,
) -> Message:
    """One message, with no keys but those that a template gets to see.

    Raises:
        CannotCount: the engine would refuse it.
    """
    role = message.get("role")
    calls = [_call(call, arguments_as_objects) for call in _list(message.get("tool_calls"))]
    if not isinstance(role, str) or ("content" not in message and "tool_calls" not in message):
        raise CannotCount("a message has no role or no content")
    parts = text_parts(message.get("content"))
    is_system = role == "developer" and not knows_developers
    shaped: Message = {"role": "system" if is_system else role}
    if takes_parts and isinstance(message.get("content"), list) and parts:
        shaped["content"] = [{"type": "text", "text": part} for part in parts]
    else:
        text = join_parts(parts, "\n")
        shaped["content"] = text if takes_texts else [{"type": "text", "text": text}]
    for key in _PASSED_ON:
        value = message.get(key, "")
        if not isinstance(value, str):
            raise CannotCount(f"{key} of a message is not text")
        if value:
            shaped[key] = value
    if calls:
        shaped["tool_calls"] = calls
    return shaped


def merge_system_message(messages: list[Message]) -> list[Message]:
    """For a template without a place for one: it goes into the message behind it.

    Raises:
        CannotCount: the engine would refuse it.
    """
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    if not rest:
        return []
    contents = [system["content"], rest[0]["content"]]
    if not all(isinstance(content, str) for content in contents):
        raise CannotCount("a system message of parts has no place in its chat template")
    return [{**rest[0], "content": "\n".join(contents)}, *rest[1:]]


def text_parts(content: object) -> list[str]:
    """The texts of a message's content. Its images are the business of others."""
    if content is None:
        return []
    parts = [content] if isinstance(content, str) else _list(content)
    texts = [
        part.get("text") if isinstance(part, dict) else part
        for part in parts
        if not isinstance(part, dict) or part.get("type") == "text"
    ]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) != len(texts):
        raise CannotCount("the content of a message is not text")
    return found


def join_parts(parts: list[str], between: str) -> str:
    """Nothing goes in front of the first part that is not empty."""
    text = ""
    for part in parts:
        text += (between if text else "") + part
    return text


def call_count(chat: Chat) -> int:
    return sum(len(_list(message.get("tool_calls"))) for message in chat.messages)


def shape_tool(tool: Message) -> Message:
    """One tool.

    Raises:
        CannotCount: the engine would refuse it.
    """
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict) or "name" not in function:
        raise CannotCount("a tool has no function or no name")
    shown = {"name": function["name"], "description": function.get("description", "")}
    return {"type": "function", "function": {**shown, "parameters": function.get("parameters", {})}}


def _call(call: object, arguments_as_objects: bool) -> Message:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise CannotCount("a tool call has no function")
    arguments = function.get("arguments")
    if arguments is None or "name" not in function:
        raise CannotCount("a tool call has no name or no arguments")
    if arguments_as_objects and isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise CannotCount("the arguments of a tool call are not JSON") from None
    elif not arguments_as_objects and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    shaped = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return shaped | ({"id": call["id"]} if call.get("id") else {})


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CannotCount("a list was expected")
    return value
