"""With `hide_cached_tokens` no answer says what was in an engine's cache, whatever its API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_gateway.server.api.hidden_cache import HidingAnswerName, without_cache

CHAT = {"prompt_tokens": 40, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 34}}
MESSAGES = {"input_tokens": 6, "cache_read_input_tokens": 34, "output_tokens": 2}
RESPONSES = {"input_tokens": 40, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 34}}
TIMINGS = {"cache_n": 34, "prompt_n": 6, "prompt_ms": 1.5, "predicted_n": 2, "predicted_ms": 9.0}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("answer", "hidden"),
    [
        (
            {"usage": CHAT, "timings": TIMINGS},
            {
                "usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": 0}},
                "timings": {"predicted_n": 2, "predicted_ms": 9.0},
            },
        ),
        (
            {"usage": MESSAGES},
            {"usage": {"input_tokens": 40, "cache_read_input_tokens": 0, "output_tokens": 2}},
        ),
        (
            {"response": {"usage": RESPONSES}},
            {"response": {"usage": {**RESPONSES, "input_tokens_details": {"cached_tokens": 0}}}},
        ),
        (
            {"prompt_progress": {"total": 40, "cache": 34, "processed": 40, "time_ms": 1}},
            {"prompt_progress": {"total": 40}},
        ),
        ({"usage": {"prompt_tokens": 4}}, {"usage": {"prompt_tokens": 4}}),
        ({"usage": None, "n": 34}, {"usage": None, "n": 34}),
    ],
)
def test_a_whole_answer_says_nothing_of_it(
    answer: dict[str, Any], hidden: dict[str, Any], indent: int | None
) -> None:
    body = json.dumps(answer, indent=indent).encode()
    assert json.loads(HidingAnswerName.in_whole("", body)) == hidden


def test_a_text_that_speaks_of_it_is_left_alone() -> None:
    body = json.dumps({"content": json.dumps({"usage": CHAT})}).encode()
    assert without_cache(body) == body


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_stream_says_nothing_of_it_however_it_is_cut(size: int) -> None:
    events = [{"model": "own", "choices": []}, {"model": "own", "usage": CHAT, "timings": TIMINGS}]
    stream = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    stream += b"data: [DONE]\n\n"
    name = HidingAnswerName("asked")
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    sent = b"".join(map(name.in_piece, pieces)) + name.rest()
    assert b"34" not in sent
    assert b"own" not in sent
    assert sent.endswith(b"data: [DONE]\n\n")
    lines = [line for line in sent.splitlines() if line.startswith(b"data: {")]
    last = json.loads(lines[-1][6:])
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert "prompt_ms" not in last["timings"]
