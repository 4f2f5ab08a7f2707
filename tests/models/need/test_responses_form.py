"""Requests of the Responses API as the chats that they are counted as."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_gateway.models.need.bounds import Overhead
from trio_gateway.models.need.responses_form import responses_as_chat

Json = dict[str, Any]

USER: Json = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
FUNCTION: Json = {"type": "function", "name": "add", "description": "Add.", "parameters": {}}
CALL: Json = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
RESULT: Json = {"type": "function_call_output", "call_id": "c", "output": "2"}
SAID: Json = {
    "type": "message", "role": "assistant", "id": "m", "status": "completed",
    "content": [{"type": "output_text", "text": "I add.", "annotations": []}],
}  # fmt: skip
THOUGHT: Json = {
    "type": "reasoning", "id": "r", "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}  # fmt: skip
MADE_CALL: Json = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def chat_of(**request: Any) -> Json:
    chat: Json = json.loads(responses_as_chat(request).body)
    return chat


def messages_of(*items: Any) -> list[Json]:
    messages: list[Json] = chat_of(input=[*items])["messages"]
    return messages


def test_a_response_with_instructions_is_a_chat() -> None:
    chat = chat_of(input="Hi", instructions="Be kind.", max_output_tokens=9)
    assert chat == {
        "max_tokens": 9,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


@pytest.mark.parametrize("given", ["", None, [{"type": "input_text", "text": "no text"}]])
def test_instructions_without_a_text_are_an_empty_system_message(given: Any) -> None:
    """With which a template leaves out the one that it has itself."""
    assert chat_of(input="Hi", instructions=given)["messages"][0] == {
        "role": "system",
        "content": "",
    }


@pytest.mark.parametrize(
    "kind",
    [
        "web_search", "web_search_preview", "file_search", "code_interpreter",
        "computer_use_preview", "mcp", "local_shell", "shell", "custom", "namespace",
        "image_generation", "apply_patch", "", None, [],
    ],
)  # fmt: skip
def test_only_functions_are_tools(kind: Any) -> None:
    other = {"type": kind, "name": "x", "description": "d " * 500}
    assert "tools" not in chat_of(input="Hi", tools=[other])
    form = responses_as_chat({"input": "Hi", "tools": [other]})
    assert form.upper_bound(Overhead()) < 300
    tools = chat_of(input="Hi", tools=[other, FUNCTION])["tools"]
    assert tools == [{
        "type": "function",
        "function": {"name": "add", "description": "Add.", "parameters": {}},
    }]  # fmt: skip


def test_a_tool_loop_is_one_message_of_the_assistant_for_each_turn() -> None:
    turn, result, last = messages_of(THOUGHT, SAID, CALL, {**CALL, "call_id": "d"}, RESULT, SAID)
    assert turn == {
        "role": "assistant",
        "content": [{"type": "text", "text": "I add."}],
        "reasoning_content": "Hm.",
        "tool_calls": [MADE_CALL, {**MADE_CALL, "id": "d"}],
    }
    assert result == {"role": "tool", "tool_call_id": "c", "content": "2"}
    assert last == {"role": "assistant", "content": [{"type": "text", "text": "I add."}]}


def test_a_call_alone_is_a_message_without_content() -> None:
    assert messages_of(CALL) == [{"role": "assistant", "tool_calls": [MADE_CALL]}]


def test_texts_of_the_assistant_that_follow_each_other_are_parts_of_one_message() -> None:
    (message,) = messages_of({**SAID, "phase": "commentary"}, SAID)
    assert message["content"] == [{"type": "text", "text": "I add."}] * 2


def test_thoughts_that_are_encrypted_or_a_summary_are_left_out() -> None:
    hidden = {"type": "reasoning", "summary": [{"text": "s"}], "encrypted_content": "x" * 900}
    assert messages_of(hidden, SAID) == messages_of(SAID)


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("2", "2"),
        ("", ""),
        ([], []),
        (None, ""),
        ([{"type": "input_text", "text": "2"}], [{"type": "text", "text": "2"}]),
        ([{"type": "output_text", "text": "2"}], [{"type": "text", "text": "2"}]),
        (
            [{"type": "input_image", "image_url": "data:,A"}],
            [{"type": "image_url", "image_url": {}}],
        ),
    ],
)
def test_what_a_tool_said_is_a_message_of_its_own(output: Any, content: Any) -> None:
    (message,) = messages_of({**RESULT, "output": output})
    assert message["content"] == content


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "input_text", "text": "Hi"}, {"type": "text", "text": "Hi"}),
        ({"type": "text", "text": "Hi"}, {"type": "text", "text": "Hi"}),
        ({"type": "refusal", "refusal": "No."}, {"type": "text", "text": "No."}),
        (
            {"type": "input_image", "image_url": "data:,A"},
            {"type": "image_url", "image_url": {}},
        ),
        ({"type": "input_file", "file_data": "A"}, {"type": "image_url", "image_url": {}}),
        ({"type": "new", "a": 1}, {"type": "text", "text": '{"type":"new","a":1}'}),
    ],
)
def test_a_part_is_a_text_or_an_image(part: Json, made: Json) -> None:
    (message,) = messages_of({"role": "user", "content": [part]})
    assert message["content"] == [made]


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_a_message_keeps_its_role_and_its_name(role: str) -> None:
    (message,) = messages_of({"type": "message", "role": role, "content": "Hi", "name": "bob"})
    assert message == {**USER, "role": role, "name": "bob"}


def test_items_that_llama_cpp_refuses_are_counted_by_what_they_say() -> None:
    call = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "Done"}
    turn, result = messages_of(call, output)
    assert turn["content"] == [{"type": "text", "text": '{"name":"patch","input":"*** Begin"}'}]
    assert result == {"role": "tool", "tool_call_id": "c", "content": "Done"}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "x"},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": []},
        {},
        7,
        "Hi",
    ],
)
def test_items_with_nothing_to_read_are_left_out(item: Any) -> None:
    assert messages_of({"role": "user", "content": "Hi"}, item) == [USER]


def test_what_bears_on_the_prompt_is_passed_on() -> None:
    given = {
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {"type": "json_object"},
        "add_generation_prompt": False,
        "tool_choice": "none",
    }
    chat = chat_of(input="Hi", **given, reasoning={"effort": "low"}, store=False)
    assert chat == {
        **given, "reasoning_effort": "low", "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip


@pytest.mark.parametrize("choice", [{"type": "function", "name": "add"}, "any", [], None])
def test_a_choice_of_tools_that_llama_cpp_has_no_word_for_is_none(choice: Any) -> None:
    assert "tool_choice" not in chat_of(input="Hi", tool_choice=choice)


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        ({"max_output_tokens": 9}, 9),
        ({"max_output_tokens": 9, "max_tokens": 3}, 9),
        ({"max_output_tokens": None, "max_tokens": 3}, 3),
        ({"n_predict": 3}, 3),
        ({}, None),
    ],
)
def test_the_answers_maximum_has_several_names(limits: Json, answer: int | None) -> None:
    assert responses_as_chat({"input": "Hi", **limits}).answer == answer
