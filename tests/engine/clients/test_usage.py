"""What answers and streams say of their tokens, in every shape that engines give them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.clients.usage import (
    SPEED_FROM_TOKENS,
    Usage,
    usage_of_answer,
    usage_of_ends,
    usage_of_stream,
)

TIMINGS = {
    "cache_n": 3190,
    "prompt_n": 8,
    "prompt_ms": 40.0,
    "predicted_n": 5,
    "predicted_ms": 60.0,
}
USAGE = {
    "prompt_tokens": 3198,
    "completion_tokens": 5,
    "total_tokens": 3203,
    "prompt_tokens_details": {"cached_tokens": 3190},
}
ALL = Usage(
    3198, completion_tokens=5, cached_tokens=3190, read_tokens=8, read_ms=40.0, made_ms=60.0
)

TEXT: dict[str, Any] = {"choices": [{"delta": {"content": "tok"}}]}
DONE = b"data: [DONE]\n\n"


def answer(**fields: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"message": {"content": "Hi"}}], **fields})


def event(**fields: Any) -> bytes:
    return b"data: " + msgspec.json.encode({**TEXT, **fields}) + b"\n\n"


# -- whole answers ---------------------------------------------------------------------------


def test_an_answer_of_llama_server_says_all() -> None:
    assert usage_of_answer(answer(usage=USAGE, timings=TIMINGS)) == ALL


def test_timings_alone_are_enough() -> None:
    assert usage_of_answer(answer(timings=TIMINGS)) == ALL


def test_usage_alone_says_nothing_of_the_time() -> None:
    assert usage_of_answer(answer(usage=USAGE)) == Usage(3198, 5, 3190)


def test_what_an_engine_does_not_say_is_not_known() -> None:
    said = usage_of_answer(answer(usage={"prompt_tokens": 10}))
    assert said == Usage(10, 0, cached_tokens=None, read_tokens=None, read_ms=None)


def test_cached_tokens_are_those_of_the_timings_where_the_usage_has_no_details() -> None:
    said = usage_of_answer(answer(usage={"prompt_tokens": 3198}, timings=TIMINGS))
    assert said is not None
    assert said.cached_tokens == 3190


@pytest.mark.parametrize("completion", [{}, {"completion_tokens": None}], ids=["absent", "null"])
def test_an_answer_without_completion_tokens_has_none(completion: dict[str, Any]) -> None:
    said = usage_of_answer(answer(usage={"prompt_tokens": 7, **completion}))
    assert said == Usage(7, 0)


def test_a_usage_of_no_tokens_leaves_it_to_the_timings() -> None:
    assert usage_of_answer(answer(usage={"prompt_tokens": 0}, timings=TIMINGS)) == ALL


@pytest.mark.parametrize(
    "body",
    [
        answer(),
        answer(usage=None, timings=None),
        answer(usage={"prompt_tokens": 0}),
        answer(timings={"prompt_n": 8}),  # and how many of the prompt were in the cache?
        answer(timings={"cache_n": 8}),
        answer(usage={"prompt_tokens": "many"}),
        answer(usage=[1], timings=TIMINGS),
        answer(usage={"prompt_tokens": 3.5}),
        b'{"error":{"code":400,"message":"too long"}}',
        b"[1]",
        b"",
        b'{"usage":{"prompt_tokens":3',
        b'{"usage":"\xff"}',
        b'{"a":' * 100_000,
        b"\x00" * 10,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_any_other_answer_says_nothing(body: bytes) -> None:
    assert usage_of_answer(body) is None


@pytest.mark.parametrize("numbers", [1, 50_000], ids=["small", "large"])
@pytest.mark.parametrize("is_first", [True, False])
def test_embeddings_say_it_before_or_after_their_numbers(numbers: int, is_first: bool) -> None:
    said = b'"usage": {"prompt_tokens": 7, "total_tokens": 7, "prompt_tokens_details": {}}'
    data = b'"data": [{"embedding": [%b]}]' % b",".join([b"0.25"] * numbers)
    body = b"{%b}" % b", ".join([said, data] if is_first else [data, said])
    assert usage_of_ends(body) == Usage(7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"data": []}',
        b'{"usage": null}',
        b'{"usage": {"prompt_tokens": -1}}',
        b'{"results": [{"document": {"text": "\\"usage\\": {\\"prompt_tokens\\": 7}"}}]}',
    ],
)
def test_other_embeddings_say_nothing(body: bytes) -> None:
    assert usage_of_ends(body) is None


# -- streams ---------------------------------------------------------------------------------


def test_a_stream_says_it_in_the_timings_of_its_last_event() -> None:
    stream = event() + event() + event(timings=TIMINGS) + DONE
    assert usage_of_stream(stream) == ALL


def test_a_stream_with_include_usage_says_it_in_an_event_of_its_own() -> None:
    stream = event() + event(choices=[], usage=USAGE, timings=TIMINGS) + DONE
    assert usage_of_stream(stream) == ALL


def test_a_stream_without_its_end_is_asked_all_the_same() -> None:
    assert usage_of_stream(event() + event(timings=TIMINGS)) == ALL


def test_the_last_event_that_says_anything_counts() -> None:
    early = {**TIMINGS, "prompt_n": 1, "predicted_n": 1}
    stream = event(timings=early) + event(timings=TIMINGS) + event(usage=None) + DONE
    assert usage_of_stream(stream) == ALL


def test_an_event_that_came_in_two_pieces_is_read() -> None:
    whole = event() + event(timings=TIMINGS) + DONE
    for cut in range(len(whole)):
        before, after = whole[:cut], whole[cut:]
        assert usage_of_stream(before + after) == ALL


def test_the_half_line_that_a_tail_begins_with_is_passed_over() -> None:
    half = event(timings=TIMINGS)[20:]
    assert usage_of_stream(half + event(usage=USAGE)) == Usage(3198, 5, 3190)
    assert usage_of_stream(half + DONE) is None


def test_the_half_line_that_a_broken_stream_ends_with_is_passed_over() -> None:
    assert usage_of_stream(event(usage=USAGE) + event(timings=TIMINGS)[:-20]) == Usage(
        3198, 5, 3190
    )


def test_comments_other_fields_and_crlf_are_nothing_special() -> None:
    stream = (
        b": loading\n\nid: 7\n" + event(timings=TIMINGS).replace(b"\n", b"\r\n") + b"\n: ping\n"
    )
    assert usage_of_stream(stream) == ALL


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        DONE,
        event() + DONE,
        event(usage=None) + DONE,
        b'data: {"error":{"message":"the engine ended"}}\n\n',
        b"data: {not json}\n\n" + DONE,
        b"data: [1]\n\ndata: 7\n\n",
        b"\xff\xfe\x00\n\n",
        msgspec.json.encode({"timings": TIMINGS}),  # no event
    ],
    ids=lambda stream: repr(stream[:40]),
)
def test_any_other_stream_says_nothing(stream: bytes) -> None:
    assert usage_of_stream(stream) is None


def test_garbage_after_it_does_not_hide_what_was_said() -> None:
    assert usage_of_stream(event(timings=TIMINGS) + b'data: {"timings":\n\ndata: {\xff}\n') == ALL


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    assert usage_of_answer(data) is None
    assert usage_of_stream(b"data: {" + data) is None


# -- speed -----------------------------------------------------------------------------------


def test_the_speed_is_that_of_the_tokens_that_were_read() -> None:
    said = Usage(4000, cached_tokens=2000, read_tokens=2000, read_ms=500.0)
    assert said.speed == pytest.approx(4000.0)


@pytest.mark.parametrize(
    ("read_tokens", "read_ms"),
    [(SPEED_FROM_TOKENS - 1, 100.0), (None, 100.0), (2000, None), (2000, 0.0), (0, 100.0)],
)
def test_a_prompt_that_says_little_of_the_speed_has_none(
    read_tokens: int | None, read_ms: float | None
) -> None:
    assert Usage(4000, read_tokens=read_tokens, read_ms=read_ms).speed is None


def test_a_prompt_just_long_enough_has_a_speed() -> None:
    assert Usage(64, read_tokens=SPEED_FROM_TOKENS, read_ms=64.0).speed == pytest.approx(1000.0)


# -- streams of the Messages API ---------------------------------------------------------------


def messages_event(**fields: object) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


def begun(**usage: int) -> bytes:
    return messages_event(type="message_start", message={"id": "m", "usage": usage})


def ended(**usage: int) -> bytes:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    last = messages_event(type="message_delta", delta=delta, usage=usage)
    return last + messages_event(type="message_stop")


@pytest.mark.parametrize(
    ("beginning", "end", "expected"),
    [
        (
            begun(input_tokens=9, cache_read_input_tokens=30, output_tokens=0),
            ended(output_tokens=12),
            Usage(39, 12, 30, finish="end_turn"),
        ),
        (
            begun(input_tokens=9, cache_creation_input_tokens=5, output_tokens=1),
            ended(output_tokens=12),
            Usage(14, 12, finish="end_turn"),
        ),
        (
            begun(input_tokens=1, output_tokens=1),
            ended(input_tokens=9, output_tokens=12),
            Usage(9, 12, finish="end_turn"),
        ),
    ],
    ids=["as llama.cpp", "as Anthropic", "the end has it, too"],
)
def test_a_message_says_at_its_beginning_how_long_the_prompt_is(
    beginning: bytes, end: bytes, expected: Usage
) -> None:
    assert usage_of_stream(end, beginning) == expected


@pytest.mark.parametrize(
    "beginning",
    [b"", b"event: message_start\n", b'data: {"type":"message_start","message":7}\n\n'],
)
def test_a_message_without_its_beginning_says_nothing(beginning: bytes) -> None:
    assert usage_of_stream(ended(output_tokens=12), beginning) is None
