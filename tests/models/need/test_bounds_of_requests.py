"""Bounds and needs from the request alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.models.need.bounds import (
    IMAGE_TOKENS,
    LEAST_IMAGE_TOKENS,
    MARGIN_TOKENS,
    Bounds,
    Overhead,
    answer_tokens,
    is_plain,
    least_answer,
    lower_bound,
    need_of,
    upper_bound,
    with_room,
)
from trio_gateway.models.need.contents import (
    RequestFields,
    chat_size,
    image_count,
    prompt_texts,
)
from trio_gateway.models.need.readable_chat import readable_messages

CHAT, COMPLETION, EMBEDDINGS = "chat/completions", "completions", "embeddings"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}


def prompt_bounds(
    endpoint: str,
    fields: RequestFields,
    overhead: Overhead | None = None,
    image_tokens: int = IMAGE_TOKENS,
) -> Bounds:
    """Of several prompts in one request, those of the largest."""
    return Bounds(
        lower_bound(endpoint, fields, image_tokens),
        upper_bound(endpoint, fields, overhead or Overhead(), image_tokens),
    )


def chat(*messages: Any, tools: Any = None) -> RequestFields:
    return RequestFields(messages=list(messages), tools=tools)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def upper(fields: RequestFields, endpoint: str = CHAT) -> int:
    return prompt_bounds(endpoint, fields).upper


def lower(fields: RequestFields, endpoint: str = CHAT) -> int:
    return prompt_bounds(endpoint, fields).lower


# -- chats ----------------------------------------------------------------------------------


def test_every_byte_of_a_message_may_be_a_token() -> None:
    short, long = chat(user("")), chat(user("ab" * 500))
    assert upper(long) - upper(short) == 1000


def test_bytes_count_and_not_characters() -> None:
    assert upper(chat(user("語" * 100))) - upper(chat(user(""))) == 300


def test_text_parts_count_like_a_plain_text() -> None:
    plain = upper(chat(user("a" * 1000)))
    parts = upper(chat(user([{"type": "text", "text": "a" * 1000}])))
    assert plain <= parts <= plain + 20


def test_an_image_counts_as_an_image_and_not_as_its_bytes() -> None:
    without, with_image = chat(user("see")), chat(user([{"type": "text", "text": "see"}, PICTURE]))
    assert IMAGE_TOKENS <= upper(with_image) - upper(without) <= IMAGE_TOKENS + 50
    assert lower(with_image) - lower(without) >= LEAST_IMAGE_TOKENS


def test_a_text_beside_media_in_one_object_is_still_counted() -> None:
    odd = {"role": "user", "content": "a" * 5000, "file": {"file_data": "B" * 9000}}
    assert 5000 + IMAGE_TOKENS <= upper(chat(odd)) < 9000
    assert image_count(chat(odd)) == 1


def test_tool_definitions_and_tool_calls_count() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 2000}}
    assert upper(chat(user("x"), tools=[tool])) - upper(chat(user("x"))) > 2000
    call = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": "9" * 700}}],
    }
    assert upper(chat(user("x"), call)) - upper(chat(user("x"))) > 700


def test_each_message_adds_an_allowance_for_the_template() -> None:
    many = [user("") for _ in range(100)]
    assert upper(chat(*many)) - upper(chat(user(""))) >= 99 * 10


def test_the_texts_of_a_chat_are_in_order() -> None:
    fields = chat({"role": "system", "content": "one"}, user([{"text": "two"}, {"text": "three"}]))
    assert prompt_texts(fields) == ["system", "one", "user", "two", "three"]


def test_a_chat_nested_deeper_than_the_stack_is_counted_all_the_same() -> None:
    nested: Any = "text"
    for _ in range(5000):
        nested = [{"content": nested}]
    assert prompt_texts(chat(nested)) == ["text"]
    assert image_count(chat(nested)) == 0


def test_a_learned_overhead_takes_the_place_of_the_cautious_one() -> None:
    fields = chat(user("x"), user("y"), tools=[{}, {}, {}])
    learned = Overhead(base=30, per_message=5, first_tool=100, per_tool=7)
    size = prompt_bounds(CHAT, fields, learned).upper
    # Two roles of 4 bytes, two texts, and the tools as indented JSON.
    assert size == 30 + 2 * 5 + 100 + 2 * 7 + 2 * 4 + 2 + len("[\n    {},\n    {},\n    {}\n]")


def test_tools_that_a_template_has_no_place_for_cost_nothing() -> None:
    ignoring = Overhead(base=30, per_message=5, first_tool=0, per_tool=0)
    with_tools = prompt_bounds(CHAT, chat(user("x"), tools=[{}] * 50), ignoring)
    assert with_tools == prompt_bounds(CHAT, chat(user("x")), ignoring)


def test_the_model_says_what_an_image_costs() -> None:
    fields = chat(user([PICTURE]))
    small = prompt_bounds(CHAT, fields, image_tokens=32)
    assert upper(fields) - small.upper == IMAGE_TOKENS - 32
    assert small.lower == 32


def test_words_are_a_lower_bound_but_not_of_what_a_template_may_drop() -> None:
    text = "three more words"
    assert lower(chat(user(text))) == 3
    assert lower(chat({"role": "assistant", "content": text})) == 3
    thought = {"role": "assistant", "content": f"<think>{text}</think> {text}"}
    assert lower(chat(thought)) == 0
    assert lower(chat({"role": "assistant", "reasoning_content": text})) == 0


def test_what_is_neither_text_nor_media_counts_as_the_json_that_a_template_may_write() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"arguments": {"key": [1, 2, 3]}}}]}
    written = json.dumps({"tool_calls": call["tool_calls"]}, indent=4)
    assert upper(chat(call)) - upper(chat({"role": "assistant"})) == len(written)


def test_media_are_taken_out_of_messages_and_nothing_else() -> None:
    parts = [{"type": "text", "text": "see"}, PICTURE]
    odd = {"role": "user", "content": "text", "file": {"file_data": "B"}}
    kept = [user([{"type": "text", "text": "see"}]), {"role": "user", "content": "text"}, 7]
    assert readable_messages([user(parts), odd, 7]) == kept
    assert readable_messages("no list") == "no list"


def test_a_turn_is_as_large_as_its_last_message() -> None:
    before = [user("long before"), {"role": "assistant", "content": "answer"}]
    assert chat_size(chat(*before, user([{"type": "text", "text": "é!"}]))).turn == 3
    assert chat_size(chat(user("a document, once"))).turn is None
    assert chat_size(RequestFields(prompt="x")).turn is None


# -- prompts and inputs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "at_least", "at_most"),
    [
        ("a" * 1280, 10, 1280 + MARGIN_TOKENS),
        ("a word " * 50, 100, 350 + MARGIN_TOKENS),
        ("", 0, MARGIN_TOKENS),
        (["a" * 128, "a" * 1280, "a"], 10, 1280 + MARGIN_TOKENS),
        ([1, 2, 3], 3, 4),
        ([[1, 2, 3], [1] * 50], 50, 51),
        ([1, "a" * 1280, 2], 12, 1280 + MARGIN_TOKENS + 3),
        ([[1, 2], "a" * 1280], 10, 1280 + MARGIN_TOKENS),
        ({"prompt_string": "a" * 1280, "multimodal_data": ["…"]}, 10 + 64, 1280 + 16 + 1024),
        ([], 0, MARGIN_TOKENS),
        (None, 0, MARGIN_TOKENS),
    ],
    ids=[
        "text",
        "words",
        "empty",
        "texts",
        "ids",
        "lists of ids",
        "mixed",
        "both",
        "media",
        "none",
        "null",
    ],
)
def test_prompts_of_every_shape_are_bounded(prompt: Any, at_least: int, at_most: int) -> None:
    bounds = prompt_bounds(COMPLETION, RequestFields(prompt=prompt))
    assert (bounds.lower, bounds.upper) == (at_least, at_most)
    assert prompt_bounds(EMBEDDINGS, RequestFields(input=prompt)) == bounds


def test_prompts_nested_deeper_than_the_stack_harm_nothing() -> None:
    nested: Any = "text"
    for _ in range(5000):
        nested = [nested]
    assert lower(RequestFields(prompt=nested), COMPLETION) == 0


# -- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"n_predict": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 8, "n_predict": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": None, "n_predict": 9}, 9),
        ({"max_tokens": 7, "n_predict": None}, 7),
        ({"max_tokens": 7, "n_predict": -1}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -1, "n_predict": 5}, 5),
        ({"max_tokens": True}, None),
        ({"max_tokens": "7"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_of_several_maxima_of_an_answer_the_one_applies_that_llama_cpp_goes_by(
    body: dict[str, Any], expected: int | None
) -> None:
    assert answer_tokens(CHAT, msgspec.convert(body, RequestFields)) == expected


def test_embeddings_have_no_answer() -> None:
    assert answer_tokens(EMBEDDINGS, RequestFields(max_tokens=100)) == 0
    assert need_of(500, 0, default_answer=4096, largest_context=8192) == 500


@pytest.mark.parametrize(
    ("prompt", "answer", "need"),
    [
        (100, 50, 166),
        (100, None, 100 + 1000 + 16),
        (3500, None, 4000),
        (3983, None, 4000),
        (3984, None, 4001),
        (9000, None, 9017),
        (100, 9000, 9116),
    ],
)
def test_a_need_is_prompt_answer_and_margin(prompt: int, answer: int | None, need: int) -> None:
    assert need_of(prompt, answer, default_answer=1000, largest_context=4000) == need


@pytest.mark.parametrize(
    ("prompt", "need"), [(100, 1116), (3400, 4016 - 16), (3484, 4000), (3485, 4001)]
)
def test_an_answer_without_a_maximum_gets_what_is_left_but_at_least_the_least(
    prompt: int, need: int
) -> None:
    assert need_of(prompt, None, default_answer=1000, largest_context=4000, least=500) == need


@pytest.mark.parametrize(
    ("given", "largest", "expected"),
    [(None, 8192, 512), (None, 1024, 256), (None, 3, 1), (700, 1024, 700)],
)
def test_the_least_answer_is_the_models_key_or_fits_a_small_context(
    given: int | None, largest: int, expected: int
) -> None:
    assert least_answer(given, largest) == expected


def test_an_engine_is_started_with_room_for_a_share_more_or_for_one_more_turn() -> None:
    assert with_room(1000, 0.1, average_turn=50) == 1100
    assert with_room(1000, 0.1, average_turn=300) == 1300
    assert with_room(1001, 0.1, average_turn=0) == 1102


# -- for any request ------------------------------------------------------------------------

TEXTS = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["content", "text", "image_url", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON, JSON, st.sampled_from([CHAT, COMPLETION, EMBEDDINGS]))
def test_the_lower_bound_is_never_above_the_upper(content: Any, tools: Any, endpoint: str) -> None:
    fields = RequestFields(messages=content, prompt=content, input=content, tools=tools)
    bounds = prompt_bounds(endpoint, fields)
    assert 0 <= bounds.lower <= bounds.upper


@given(st.lists(TEXTS, max_size=8))
def test_no_text_of_a_chat_has_more_bytes_than_its_upper_bound(texts: list[str]) -> None:
    fields = chat(*map(user, texts))
    assert upper(fields) >= sum(len(text.encode()) for text in texts)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_several_prompts_are_bounded_by_the_largest(texts: list[str]) -> None:
    each = [prompt_bounds(COMPLETION, RequestFields(prompt=text)) for text in texts]
    together = prompt_bounds(COMPLETION, RequestFields(prompt=texts))
    assert together.upper == max(b.upper for b in each)
    assert together.lower == max(b.lower for b in each)


@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.none() | st.integers(0, 9000),
    st.integers(1, 9000),
    st.integers(1, 9000),
)
def test_a_longer_prompt_never_needs_less(
    one: int, other: int, answer: int | None, default: int, largest: int
) -> None:
    short, long = sorted((one, other))
    needs = [need_of(p, answer, default, largest) for p in (short, long)]
    assert needs[0] <= needs[1]
    assert needs[0] >= short


@given(st.integers(0, 9000), st.integers(1, 9000), st.integers(1, 9000))
def test_the_default_answer_never_makes_a_fitting_prompt_too_large(
    prompt: int, default: int, largest: int
) -> None:
    fits_with_one_token = prompt + 1 + MARGIN_TOKENS <= largest
    assert (need_of(prompt, None, default, largest) <= largest) == fits_with_one_token


@pytest.mark.parametrize(
    ("endpoint", "fields", "plain"),
    [
        (CHAT, chat(user("x")), True),
        (CHAT, chat(user([PICTURE])), False),
        (COMPLETION, RequestFields(prompt="x"), True),
        (COMPLETION, RequestFields(prompt=[1, 2]), True),
        (COMPLETION, RequestFields(prompt=["x", "y"]), False),
        (EMBEDDINGS, RequestFields(input="x"), False),
    ],
)
def test_only_one_prompt_without_media_can_be_held_against_its_usage(
    endpoint: str, fields: RequestFields, plain: bool
) -> None:
    assert is_plain(endpoint, fields, chat_size(fields)) is plain
