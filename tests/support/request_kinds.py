"""Requests with each kind of tool, message and part that there is, one at a time, by API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "number"}}}
LONG = "a long description " * 20
IMAGE_URL = "data:image/png;base64,AAAA"


def _user(content: Any = "One and one?") -> Json:
    return {"role": "user", "content": content}


def _text(text: str = "Hi", kind: str = "text") -> Json:
    return {"type": kind, "text": text}


# -- the Responses API --------------------------------------------------------------------------

_F: Json = {"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA}
_CALL: Json = {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a":1}'}
_OUT: Json = {"type": "function_call_output", "call_id": "c", "output": "2 is the sum"}
_SAID: Json = {"type": "message", "role": "assistant", "id": "m", "status": "completed",
               "content": [{**_text("I do it.", "output_text"), "annotations": []}]}  # fmt: skip
_THOUGHT: Json = {"type": "reasoning", "id": "r", "summary": [],
                  "content": [_text("I think", "reasoning_text"), _text("more")]}  # fmt: skip
_RESPONSES_TOOLS = (
    "web_search", "web_search_preview", "file_search", "code_interpreter", "computer_use_preview",
    "mcp", "local_shell", "shell", "custom", "namespace", "image_generation", "apply_patch", "",
)  # fmt: skip
_ITEMS: Mapping[str, list[Any]] = {
    "a turn": [_user(), _THOUGHT, _SAID, _CALL, _OUT, _SAID],
    "parallel calls": [_user(), _THOUGHT, _CALL, {**_CALL, "call_id": "d"}, _OUT, _OUT],
    "a call alone": [_user(), _CALL, _OUT],
    "two texts": [_user(), _SAID, _SAID, _user()],
    "phases": [_user(), {**_SAID, "phase": "commentary"}, {**_SAID, "phase": "final"}, _user()],
    "thoughts after a text": [_user(), _SAID, _THOUGHT, _user()],
    "thoughts elsewhere": [_user(), {"type": "reasoning", "summary": [], "encrypted_content": "x"}],
    "a text of the assistant": [_user(), {**_SAID, "content": "I do."}, _user()],
    "no type": [_user(), {"role": "assistant", "content": "I do."}, _user()],
    "refusal": [_user(), {**_SAID, "content": [{"type": "refusal", "refusal": "No."}]}, _user()],
    "an answer begun": [_user(), _SAID],
    "parts of an output": [_user(), _CALL, {**_OUT, "output": [_text("a", "input_text")] * 2}],
    "a picture of an output": [_user(), _CALL, {**_OUT, "output": [
        {"type": "input_image", "image_url": IMAGE_URL}]}],
    "no output": [_user(), _CALL, {**_OUT, "output": ""}],
    "no parts of an output": [_user(), _CALL, {**_OUT, "output": []}],
    "arguments that are no JSON": [_user(), {**_CALL, "arguments": "{a"}, _OUT],
    "developer": [{"role": "developer", "content": "Be."}, _user()],
    "parts of a system text": [
        {"type": "message", "role": "system", "content": [_text("a", "input_text")] * 2}, _user()],
    "name": [{**_user(), "name": "bob"}],
    "empty": [_user("")],
    "no parts": [_user([])],
    "no content": [_user(None)],
    "file": [_user([{"type": "input_file", "file_data": "A"}])],
    "picture": [_user([_text("a", "input_text"), {"type": "input_image", "image_url": IMAGE_URL}])],
    "chat's part": [_user([_text()])],
    "chat's tool": [_user(), {"role": "tool", "content": "x"}],
    "item_reference": [_user(), {"type": "item_reference", "id": "x"}],
    "web_search_call": [_user(), {"type": "web_search_call", "id": "x", "status": "completed"}],
    "mcp_call": [_user(), {"type": "mcp_call", "id": "x", "name": "y", "arguments": "{}"}],
    "local_shell_call": [
        _user(), {"type": "local_shell_call", "call_id": "x", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "x", "output": "a b"}],
    "compaction": [{"type": "compaction", "encrypted_content": "x"}, _user()],
}  # fmt: skip
RESPONSES: Mapping[str, Json] = {
    **{f"tool {t}": {"input": "Hi", "tools": [{"type": t, "name": "x", "description": LONG}]}
       for t in _RESPONSES_TOOLS},
    **{f"function and {t}": {"input": "Hi", "tools": [_F, {"type": t, "description": LONG}]}
       for t in _RESPONSES_TOOLS},
    **{name: {"input": items, "tools": [_F]} for name, items in _ITEMS.items()},
    "text": {"input": "Hi"},
    "no tools": {"input": "Hi", "tools": []},
    "null for tools": {"input": "Hi", "tools": None},
    "strict": {"input": "Hi", "tools": [{**_F, "strict": False}]},
    "tool without a name": {"input": "Hi", "tools": [{"type": "function"}]},
    "chat's function": {"input": "Hi", "tools": [{"type": "function", "function": _F}]},
    "no description": {"input": "Hi", "tools": [{"type": "function", "name": "add"}]},
    "instructions": {"input": "Hi", "instructions": "Be kind."},
    "empty instructions": {"input": "Hi", "instructions": ""},
    "null for instructions": {"input": "Hi", "instructions": None},
    "instructions alone": {"input": [], "instructions": "Be kind."},
    "effort none": {"input": "Hi", "reasoning": {"effort": "none"}},
    "effort": {"input": "Hi", "reasoning": {"effort": "high", "summary": "auto"}},
    "null for reasoning": {"input": "Hi", "reasoning": None},
    "choice none": {"input": "Hi", "tools": [_F], "tool_choice": "none"},
    "choice of one": {"input": "Hi", "tools": [_F], "tool_choice": {"type": "function"}},
    "choice required": {"input": "Hi", "tools": [_F], "tool_choice": "required"},
    "format": {"input": "Hi", "text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "previous": {"input": "Hi", "previous_response_id": "x"},
    "no generation prompt": {"input": "Hi", "add_generation_prompt": False},
    "template's variables": {"input": "Hi", "chat_template_kwargs": {"enable_thinking": False}},
    "messages, too": {"input": "Hi", "messages": [_user()] * 3},
}  # fmt: skip


# -- Anthropic's Messages API -------------------------------------------------------------------

_T: Json = {"name": "add", "description": "Adds.", "input_schema": SCHEMA}
_USE: Json = {"type": "tool_use", "id": "t", "name": "add", "input": {"a": [1.5, "é"], "b": None}}
_PICTURE: Json = {
    "type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
}  # fmt: skip
_ANTHROPIC_TOOLS = (
    "web_search_20250305", "bash_20250124", "text_editor_20250728", "computer_20250124",
    "code_execution_20250522", "web_fetch_20250910", "memory_20250818", "custom", "mcp_toolset",
)  # fmt: skip


def _said(*blocks: Json) -> Json:
    return {"role": "assistant", "content": [*blocks]}


def _result(content: Any, **fields: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": "t", "content": content, **fields}


_SEARCH: list[Json] = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": [
        {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "x"}]},
]  # fmt: skip
_DOCUMENT: Json = {"type": "document", "source": {"type": "text", "data": LONG}}
_TALKS: Mapping[str, list[Json]] = {
    "a turn": [
        _user(), _said({"type": "thinking", "thinking": "Hm.", "signature": "s"}, _text(), _USE),
        _user([_result("2"), _text("go on")]), _said(_text("x"))],
    "parallel uses": [_user(), _said(_USE, {**_USE, "id": "u"}), _user([
        _result([_text("2"), _text("3")]), _result(None, tool_use_id="u")])],
    "an error": [_user(), _said(_USE), _user([_result("bad", is_error=True)])],
    "a picture as the result": [_user(), _said(_USE), _user([_result([_text(), _PICTURE])])],
    "a search as the result": [_user(), _said(_USE), _user([_result([
        {"type": "search_result", "title": "x", "content": [_text("q")]}, _text("y")])])],
    "no parts as the result": [_user(), _said(_USE), _user([_result([])])],
    "a number as the result": [_user(), _said(_USE), _user([_result(5)])],
    "redacted": [_user(), _said({"type": "redacted_thinking", "data": "x"}, _text()), _user()],
    "redacted alone": [_user(), _said({"type": "redacted_thinking", "data": "x"}), _user()],
    "thinking alone": [_user(), _said({"type": "thinking", "thinking": "Hm."}), _user()],
    "thinking twice": [_user(), _said(*[{"type": "thinking", "thinking": "Hm."}] * 2), _user()],
    "document": [_user([_DOCUMENT, _text()])],
    "document alone": [_user(), _user([_DOCUMENT])],
    "a search of the server": [_user(), _said(*_SEARCH, _text("It is.")), _user()],
    "search_result": [_user([{"type": "search_result", "content": [_text()]}, _text()])],
    "container_upload": [_user([{"type": "container_upload", "file_id": "x"}, _text()])],
    "picture": [_user([_PICTURE, _text()])],
    "a picture of a file": [
        _user([{"type": "image", "source": {"type": "file", "file_id": "x"}}, _text()])],
    "mcp": [_user(), _said(
        {"type": "mcp_tool_use", "id": "m", "name": "x", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "content": [_text()]}), _user()],
    "compaction": [_said({"type": "compaction", "content": "x"}), _user()],
    "empty": [_user("")],
    "empty text": [_user([_text("")])],
    "no parts": [_user(), _said(), _user()],
    "null": [_user(None)],
    "no content": [_user(), {"role": "assistant"}, _user()],
    "null of the assistant": [_user(), {"role": "assistant", "content": None}, _user()],
    "an answer begun": [_user(), {"role": "assistant", "content": "The"}],
    "system": [{"role": "system", "content": "Be."}, _user()],
    "system later": [_user(), {"role": "system", "content": "Be."}, _user()],
    "a text as the input": [_user(), _said({**_USE, "input": "x"}), _user([_result("2")])],
    "no input": [_user(), _said({**_USE, "input": None}), _user([_result("2")])],
}  # fmt: skip
MESSAGES: Mapping[str, Json] = {
    **{f"tool {t}": {"messages": [_user()], "tools": [_T, {"type": t, "name": "x", "max_uses": 5}]}
       for t in _ANTHROPIC_TOOLS},
    **{name: {"messages": talk, "tools": [_T]} for name, talk in _TALKS.items()},
    "text": {"messages": [_user()]},
    "no tools": {"messages": [_user()], "tools": []},
    "tool without a name": {"messages": [_user()], "tools": [{"type": "web_search_20250305"}]},
    "no schema": {"messages": [_user()], "tools": [{"name": "x", "input_schema": None}]},
    "cached tool": {"messages": [_user()], "tools": [{**_T, "cache_control": {"type": "x"}}]},
    "system text": {"messages": [_user()], "system": "Be kind."},
    "empty system text": {"messages": [_user()], "system": ""},
    "no blocks of a system text": {"messages": [_user()], "system": []},
    "null for a system text": {"messages": [_user()], "system": None},
    "blocks of a system text": {"messages": [_user()], "system": [_text("a"), _text("b")]},
    "choice any": {"messages": [_user()], "tools": [_T], "tool_choice": {"type": "any"}},
    "choice none": {"messages": [_user()], "tools": [_T], "tool_choice": {"type": "none"}},
    "thinking": {"messages": [_user()], "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "variables": {"messages": [_user()], "chat_template_kwargs": {"enable_thinking": False}},
}  # fmt: skip


# -- chat completions ---------------------------------------------------------------------------

_FUNCTION: Json = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
_TOOL_CALL: Json = {
    "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'},
}  # fmt: skip
_TOOL_RESULT: Json = {"role": "tool", "tool_call_id": "c", "content": "2 is the sum"}


def _calls(*calls: Json) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": [*calls]}


CHATS: Mapping[str, Json] = {
    **{f"tool {t}": {"messages": [_user()], "tools": [_FUNCTION, {"type": t, t: {"name": "x"}}]}
       for t in ("custom", "web_search", "function")},
    "function": {"messages": [_user()], "tools": [_FUNCTION]},
    "flat function": {"messages": [_user()], "tools": [_F]},
    "tool without a type": {"messages": [_user()], "tools": [{"function": {"name": "x"}}]},
    "a turn": {"messages": [_user(), _calls(_TOOL_CALL), _TOOL_RESULT, _user()]},
    "custom call": {"messages": [_user(), _calls(
        {"id": "c", "type": "custom", "custom": {"name": "x", "input": "y"}}), _TOOL_RESULT]},
    "arguments as an object": {"messages": [_user(), _calls(
        {**_TOOL_CALL, "function": {"name": "add", "arguments": {"a": 1}}}), _TOOL_RESULT]},
    "parts as the result": {"messages": [
        _user(), _calls(_TOOL_CALL), {**_TOOL_RESULT, "content": [_text("a"), _text("b")]}]},
    "function's result": {"messages": [_user(), {"role": "function", "name": "x", "content": "y"}]},
    "no calls": {"messages": [_user(), {"role": "assistant", "content": "x", "tool_calls": []}]},
    "thoughts": {"messages": [
        _user(), {"role": "assistant", "content": "x", "reasoning_content": "Hm."}, _user()]},
    "what is not read": {"messages": [
        _user(), {"role": "assistant", "content": "x", "refusal": None, "audio": {"id": "x"},
                  "annotations": [], "reasoning": "Hm."}, _user()]},
    "parts": {"messages": [_user([{**_text("a"), "cache_control": {}}, _text("b")])]},
    "parts of the Responses API": {"messages": [_user([_text("a", "input_text")])]},
    "refusal": {"messages": [_user(), _said({"type": "refusal", "refusal": "No."}), _user()]},
    "strings as parts": {"messages": [_user(["a", "b"])]},
    "picture": {"messages": [_user([{"type": "image_url", "image_url": {"url": IMAGE_URL}}])]},
    "a picture of Anthropic's": {"messages": [_user([_PICTURE, _text()])]},
    "file": {"messages": [_user([{"type": "file", "file": {"file_data": "A"}}, _text()])]},
    "sound": {"messages": [_user([{"type": "input_audio", "input_audio": {"data": "A"}}])]},
    "developer": {"messages": [{"role": "developer", "content": "Be."}, _user()]},
    "null": {"messages": [_user(None)]},
    "choice of one": {"messages": [_user()], "tools": [_FUNCTION],
                      "tool_choice": {"type": "function", "function": {"name": "add"}}},
    "choice any": {"messages": [_user()], "tools": [_FUNCTION], "tool_choice": "any"},
    "null for thoughts": {"messages": [
        _user(), {"role": "assistant", "content": "x", "reasoning_content": None}, _user()]},
    "null for a name": {"messages": [{**_user(), "name": None}]},
    "null for a description": {"messages": [_user()], "tools": [
        {"type": "function", "function": {"name": "x", "description": None}}]},
    "no arguments": {"messages": [_user(), _calls(
        {"id": "c", "type": "function", "function": {"name": "x"}}), _TOOL_RESULT]},
    "functions": {"messages": [_user()], "functions": [{"name": "x"}], "function_call": "auto"},
}  # fmt: skip

KINDS: Mapping[str, Mapping[str, Json]] = {
    "responses": RESPONSES,
    "messages": MESSAGES,
    "chat/completions": CHATS,
}


def has_picture(body: Json) -> bool:
    """Or other media, anywhere in it."""
    return any(
        kind in ("image", "image_url", "input_image", "input_audio", "input_file", "file")
        for kind in _types(body)
    )


def _types(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for entry in value:
            yield from _types(entry)
    elif isinstance(value, dict):
        yield value.get("type")
        for entry in value.values():
            yield from _types(entry)
