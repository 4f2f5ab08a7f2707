"""Requests of Anthropic's Messages API as the chats that they are counted as."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_gateway.models.need.messages_form import messages_as_chat

Json = dict[str, Any]

TEXT: Json = {"type": "text", "text": "Hi"}
USE: Json = {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}}
IMAGE: Json = {"type": "image", "source": {"type": "base64", "data": "x" * 10_000}}
MADE_IMAGE: Json = {"type": "image_url", "image_url": {}}


def chat_of(**request: Any) -> Json:
    chat: Json = json.loads(messages_as_chat(request).body)
    return {name: value for name, value in chat.items() if value is not None}


def messages_of(role: str, *blocks: Json) -> list[Json]:
    messages: list[Json] = chat_of(messages=[{"role": role, "content": [*blocks]}])["messages"]
    return messages


def test_a_message_with_a_system_text_is_a_chat() -> None:
    chat = chat_of(
        model="m",
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}, IMAGE],
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=7,
    )
    assert chat == {
        "max_tokens": 7,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


@pytest.mark.parametrize("system", ["", [], [IMAGE]])
def test_a_system_text_that_is_empty_is_one(system: Any) -> None:
    """With which a template leaves out the one that it has itself."""
    chat = chat_of(system=system, messages=[{"role": "user", "content": "Hi"}])
    assert chat["messages"][0] == {"role": "system", "content": ""}


def test_the_checksum_before_the_system_text_is_counted_as_the_engine_writes_it() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1; cch=a5145;"
    (system,) = chat_of(system=[{"type": "text", "text": line}, TEXT])["messages"]
    assert system["content"] == "x-anthropic-billing-header: cc_version=2.1; cch=fffff;Hi"


def test_tools_their_use_and_their_results_are_those_of_a_chat() -> None:
    chat = chat_of(
        tools=[{"name": "add", "description": "Add.", "input_schema": {"type": "object"}}],
        messages=[
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "I add."},
                    USE,
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "2"},
                    {"type": "tool_result", "tool_use_id": "2", "content": "3"},
                ],
            },
        ],
    )
    assert chat["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "add", "description": "Add.", "parameters": {"type": "object"},
            },
        }
    ]  # fmt: skip
    assistant, *results = chat["messages"]
    assert assistant["reasoning_content"] == "Hm."
    assert assistant["content"] == [{"type": "text", "text": "I add."}]
    assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert results == [
        {"role": "tool", "tool_call_id": "1", "content": "2"},
        {"role": "tool", "tool_call_id": "2", "content": "3"},
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305", "bash_20250124", "text_editor_20250728", "computer_20250124",
        "code_execution_20250522", "web_fetch_20250910", "custom",
    ],
)  # fmt: skip
def test_every_tool_is_a_function(kind: str) -> None:
    (tool,) = chat_of(tools=[{"type": kind, "name": "x", "max_uses": 5}])["tools"]
    assert tool["function"] == {"name": "x", "description": "", "parameters": {}}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "redacted_thinking", "data": "x" * 900},
        {"type": "document", "source": {"type": "base64", "data": "x" * 900}},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "search_result", "content": [TEXT]},
        {"type": "image", "source": {"type": "file", "file_id": "x"}},
        {"type": []},
    ],
)
def test_blocks_that_the_engine_drops_are_not_counted(block: Json) -> None:
    assert messages_of("user", block, TEXT) == [{"role": "user", "content": [TEXT]}]
    assert messages_of("user", block) == []


@pytest.mark.parametrize(
    ("content", "made"),
    [
        ("2", "2"),
        ([{"type": "text", "text": "2"}, {"type": "text", "text": "3"}], "23"),
        ([], ""),
        (None, ""),
        (5, ""),
        ([TEXT, {"type": "search_result", "content": []}], "Hi"),
        ([TEXT, IMAGE], [TEXT, MADE_IMAGE]),
    ],
)
def test_a_result_is_one_text_unless_it_has_images(content: Any, made: Any) -> None:
    (message,) = messages_of(
        "user", {"type": "tool_result", "tool_use_id": "1", "content": content}
    )
    assert message == {"role": "tool", "tool_call_id": "1", "content": made}


def test_what_a_user_says_comes_before_the_results() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": "2"}
    assert [m["role"] for m in messages_of("user", result, TEXT)] == ["user", "tool"]


def test_an_image_counts_as_one_and_not_as_its_bytes() -> None:
    (message,) = messages_of("user", IMAGE)
    assert message["content"] == [MADE_IMAGE]


@pytest.mark.parametrize(
    ("message", "made"),
    [
        ({"role": "assistant"}, []),
        ({"role": "assistant", "content": []}, []),
        ({"role": "assistant", "content": None}, [{"role": "assistant", "content": None}]),
        ({"role": "user", "content": ""}, [{"role": "user", "content": ""}]),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}]},
            [{"role": "assistant", "content": "", "reasoning_content": "Hm."}],
        ),
    ],
)
def test_a_message_without_content_is_none(message: Json, made: list[Json]) -> None:
    assert chat_of(messages=[message])["messages"] == made


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "add"}, "required"),
        ({"type": "none"}, None),
        ({"type": []}, None),
        ("auto", None),
    ],
)
def test_a_choice_of_tools_is_in_the_words_of_a_chat(choice: Any, made: str | None) -> None:
    assert chat_of(tool_choice=choice).get("tool_choice") == made
