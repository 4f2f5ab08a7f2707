"""Requests as the chats, prompts and inputs that they are counted as."""

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
    rerank_as_input,
)
from trio_gateway.models.need.messages_form import messages_as_chat
from trio_gateway.models.need.responses_form import responses_as_chat


def convert(how: Callable[[dict[str, Any]], CountedForm], **request: Any) -> dict[str, Any]:
    form = how(request)
    result: dict[str, Any] = json.loads(form.body)
    return {"kind": form.kind, **{k: v for k, v in result.items() if v is not None}}


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


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        ({"prompt_string": "a b"}, "a b"),
        ([{"prompt_string": "a"}, "b"], ["a", "b"]),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], ["ab"]),
        ([1, 2, "a"], [1, 2, "a"]),
    ],
)
def test_a_prompt_in_an_object_is_counted_as_its_text(given: Any, counted: Any) -> None:
    form = as_is("completions", {"prompt": given}, json.dumps({"prompt": given}).encode())
    found = form.countable()
    assert found is not None
    assert json.loads(found.body)["prompt"] == counted
    assert found.fields.prompt == counted
    assert form.lower_bound() <= len(str(counted)) <= form.upper_bound(Overhead())


def test_a_prompt_with_media_is_left_to_its_bound() -> None:
    given = {"prompt_string": "a", "multimodal_data": ["AAAA"]}
    found = as_is("completions", {"prompt": given}, json.dumps({"prompt": given}).encode())
    counted = found.countable()
    assert counted is not None
    assert counted.fields.prompt == given


@pytest.mark.parametrize(
    "value",
    [
        None, 3, "text", [], [3], {}, [{}], [[]], {"type": []}, [{"type": []}],
        [{"role": []}], [{"content": {}}], [{"role": "user", "content": [{"type": {}}, 3, None]}],
        [{"type": "function", "function": 3}], [{"type": "reasoning", "content": [3]}],
        [{"role": "assistant", "tool_calls": [3, {"type": {}}, {"type": "custom"}]}],
        [{"type": "function_call"}, {"type": "function_call_output", "output": [3]}],
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "field", ["messages", "tools", "system", "input", "documents", "tool_choice", "instructions"]
)
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
