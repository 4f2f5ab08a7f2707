"""What of a chat is counted: what an engine reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_gateway.models.need.counted_form import as_is

Json = dict[str, Any]

FUNCTION: Json = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL: Json = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
USER: Json = {"role": "user", "content": "Hi"}


def counted(*messages: Any, **fields: Any) -> Json:
    chat = {"messages": [*messages], **fields}
    found = as_is("chat/completions", chat, json.dumps(chat).encode()).countable()
    assert found is not None
    made: Json = json.loads(found.body)
    assert made["messages"] == found.fields.messages
    assert made.get("tools") == found.fields.tools
    return made


def test_a_chat_that_engines_read_is_counted_as_it_came() -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "2"}]}
    chat = {"messages": [USER, said, result], "tools": [FUNCTION], "seed": 7}
    body = json.dumps(chat).encode()
    found = as_is("chat/completions", chat, body).countable()
    assert found is not None
    assert found.body is body


@pytest.mark.parametrize("tools", [None, []])
def test_a_chat_without_tools_is_counted_as_it_came(tools: Any) -> None:
    chat = {"messages": [USER], "tools": tools}
    body = json.dumps(chat).encode()
    found = as_is("chat/completions", chat, body).countable()
    assert found is not None
    assert found.body is body


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "custom", "custom": {"name": "x"}},
        {"type": "function", "name": "flat"},
        {"type": []},
        {"function": {"name": "x"}},
        3,
    ],
)
def test_a_tool_that_is_no_function_is_left_out(tool: Any) -> None:
    assert counted(USER, tools=[tool, FUNCTION])["tools"] == [FUNCTION]
    assert "tools" not in counted(USER, tools=[tool])


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "input_text", "text": "a"}, [{"type": "text", "text": "a"}]),
        ({"type": "refusal", "refusal": "No."}, [{"type": "text", "text": "No."}]),
        ("a", [{"type": "text", "text": "a"}]),
        ({"type": "image_url", "image_url": {"url": "data:,A"}}, []),
        ({"type": "image", "source": {"data": "A" * 900}}, []),
        ({"type": "file", "file": {"file_data": "A"}}, []),
        ({"type": "new", "a": 1}, [{"type": "text", "text": '{"type":"new","a":1}'}]),
    ],
)
def test_a_part_that_is_no_text_is_counted_by_the_text_in_it(part: Any, made: list[Json]) -> None:
    text = {"type": "text", "text": "q"}
    (message,) = counted({"role": "user", "content": [part, text]})["messages"]
    assert message["content"] == [*made, text]


@pytest.mark.parametrize(
    ("call", "function"),
    [
        ({"type": "custom", "custom": {"name": "x", "input": "y"}}, ("x", '{"input":"y"}')),
        ({"function": {"name": "x", "arguments": "{}"}}, ("x", "{}")),
        ({"type": "custom", "name": "x"}, ("x", "{}")),
        ({}, ("", "{}")),
        ({"type": "function", "function": {"name": "x"}}, ("x", "{}")),
        ({"type": "function", "function": {"name": "x", "arguments": None}}, ("x", "{}")),
    ],
)
def test_a_call_of_another_tool_is_counted_as_one_of_a_function(
    call: Json, function: tuple[str, str]
) -> None:
    said = {"role": "assistant", "content": "", "tool_calls": [call, CALL]}
    (message,) = counted(said)["messages"]
    other, same = message["tool_calls"]
    assert (other["function"]["name"], other["function"]["arguments"]) == function
    assert same == CALL


@pytest.mark.parametrize(
    ("message", "made"),
    [
        ({"reasoning_content": None, "content": "a"}, {"content": "a"}),
        ({"name": None, "tool_call_id": None, "content": None}, {"content": None}),
        ({"refusal": None, "content": "a"}, {"refusal": None, "content": "a"}),
        ({"content": {"type": "text", "text": "a"}}, {"content": [{"type": "text", "text": "a"}]}),
        ({}, {"content": ""}),
    ],
)
def test_a_null_is_read_as_what_is_not_there(message: Json, made: Json) -> None:
    assert counted({"role": "user", **message})["messages"] == [{"role": "user", **made}]


def test_a_description_that_is_no_text_is_none() -> None:
    given = {"type": "function", "function": {"name": "add", "description": None}}
    made = {"type": "function", "function": {"name": "add", "description": ""}}
    assert counted(USER, tools=[given])["tools"] == [made]


@pytest.mark.parametrize(
    ("choice", "made"),
    [("auto", "auto"), ("any", None), ({"type": "function"}, {"type": "function"})],
)
def test_a_choice_that_engines_have_no_word_for_is_left_out(choice: Any, made: Any) -> None:
    assert counted(USER, tools=[FUNCTION], tool_choice=choice).get("tool_choice") == made
