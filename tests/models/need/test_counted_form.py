"""Requests of other APIs as the chats, prompts and inputs that they are counted as."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from trio_gateway.models.need.bounds import Overhead
from trio_gateway.models.need.counted_form import (
    CountedForm,
    as_is,
    embedding_as_input,
    infill_as_prompt,
    messages_as_chat,
    rerank_as_input,
    responses_as_chat,
)


def convert(how: Callable[[dict[str, Any]], CountedForm], **request: Any) -> dict[str, Any]:
    form = how(request)
    result: dict[str, Any] = json.loads(form.body)
    return {"kind": form.kind, **{k: v for k, v in result.items() if v is not None}}


def test_a_message_with_a_system_text_is_a_chat() -> None:
    chat = convert(
        messages_as_chat,
        model="m",
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=7,
    )
    assert chat == {
        "kind": "chat/completions",
        "max_tokens": 7,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_tools_their_use_and_their_results_are_those_of_a_chat() -> None:
    chat = convert(
        messages_as_chat,
        tools=[{"name": "add", "description": "Add.", "input_schema": {"type": "object"}}],
        messages=[
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "I add."},
                    {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}},
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


def test_an_image_counts_as_one_and_not_as_its_bytes() -> None:
    source = {"type": "base64", "data": "x" * 10_000}
    chat = convert(
        messages_as_chat,
        messages=[{"role": "user", "content": [{"type": "image", "source": source}]}],
    )
    assert "image_url" in chat["messages"][0]["content"][0]


def test_a_response_with_instructions_is_a_chat() -> None:
    chat = convert(responses_as_chat, input="Hi", instructions="Be kind.", max_output_tokens=9)
    assert chat["max_tokens"] == 9
    assert chat["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_the_items_of_a_response_are_the_messages_of_a_chat() -> None:
    chat = convert(
        responses_as_chat,
        tools=[{"type": "function", "name": "add", "parameters": {}}],
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "1+1"}]},
            {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "2"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
            7,
        ],
    )
    assert chat["tools"][0]["function"] == {"name": "add", "parameters": {}}
    user, call, output, reasoning = chat["messages"]
    assert user["content"] == [{"type": "text", "text": "1+1"}]
    assert call["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}
    assert output == {"role": "tool", "tool_call_id": "c", "content": "2"}
    assert reasoning["reasoning_content"] == "Hm."


def test_the_texts_around_a_gap_are_one_prompt() -> None:
    made = convert(
        infill_as_prompt, input_prefix="a", input_suffix="b",
        input_extra=[{"filename": "f", "text": "t"}], n_predict=3,
    )  # fmt: skip
    assert made == {"kind": "completions", "prompt": "a\nb\nf\nt", "n_predict": 3}


def test_an_embedding_has_content_or_input() -> None:
    assert convert(embedding_as_input, content="a")["input"] == "a"
    assert convert(embedding_as_input, input=["a", "b"])["input"] == ["a", "b"]


def test_a_document_is_read_with_the_query() -> None:
    assert counted_pairs(query="q", documents=["d", {"text": "e"}]) == ["q\nd", "q\ne"]
    assert counted_pairs(query="q", texts=["d"]) == ["q\nd"]


def counted_pairs(**request: Any) -> Any:
    counted = rerank_as_input(request).countable()
    assert counted is not None
    return json.loads(counted.body)["input"]


def test_the_size_of_a_rerank_is_that_of_its_texts_put_together() -> None:
    """And is found by adding, however long the query is and however many documents there are."""
    query, documents = "what is it ", ["a b", "ein längerer Text", ""]
    form = rerank_as_input({"query": query, "documents": documents})
    whole = as_is("embeddings", {"input": [f"{query}\n{d}" for d in documents]}, b"")
    assert form.upper_bound(Overhead()) == whole.upper_bound(Overhead())
    assert form.lower_bound() == whole.lower_bound()


def test_a_long_query_is_not_put_before_each_of_many_documents() -> None:
    query = "q " * 10_000
    form = rerank_as_input({"query": query, "documents": ["d"] * 49_000})
    tracemalloc.start()
    try:
        assert form.upper_bound(Overhead()) == 20_018
        assert form.lower_bound() == 10_001
        counted = form.countable()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16_000_000  # all of them are 980 MB
    assert counted is not None
    assert (counted.left_out, counted.rest) == (48_936, 20_018)


@pytest.mark.parametrize("value", [None, 3, "text", [], [3], {}, [{}], [[]]])
@pytest.mark.parametrize("field", ["messages", "tools", "system", "input", "documents"])
@pytest.mark.parametrize(
    "how",
    [messages_as_chat, responses_as_chat, infill_as_prompt, embedding_as_input, rerank_as_input],
)
def test_nonsense_is_converted_to_something(
    how: Callable[[dict[str, Any]], CountedForm], field: str, value: Any
) -> None:
    form = how({field: value})
    assert form.kind
    assert form.countable() is not None
    assert form.lower_bound() <= form.upper_bound(Overhead())
