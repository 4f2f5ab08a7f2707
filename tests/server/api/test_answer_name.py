"""The model's name in answers is the one that was asked for."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.hidden_cache import HidingAnswerName

EVENTS = (
    b'data: {"choices":[{"delta":{"content":"say \\"model\\":\\"engine\\""}}],"model":"engine"}\n\n'
    b'data: {"choices":[],"model":"engine"}\n\ndata: [DONE]\n\n'
)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({p % (len(text) + 1) for p in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def through(name: AnswerName, pieces: list[bytes]) -> bytes:
    return b"".join([*map(name.in_piece, pieces), name.rest()])


@given(st.lists(st.integers(0, 500)))
def test_however_a_stream_is_cut_the_name_is_replaced_and_nothing_else(places: list[int]) -> None:
    expected = EVENTS.replace(b'"model":"engine"', b'"model":"asked/\\"x"')
    assert through(AnswerName('asked/"x'), cut(EVENTS, places)) == expected
    assert b'\\"model\\":\\"engine\\"' in expected  # what the text says of models stays


@given(st.lists(st.integers(0, 500)))
def test_a_stream_with_the_right_name_is_not_touched(places: list[int]) -> None:
    assert through(AnswerName("engine"), cut(EVENTS, places)) == EVENTS
    assert through(AnswerName(""), cut(EVENTS, places)) == EVENTS
    spaced = EVENTS.replace(b'"model":', b'"model" : ')
    assert through(AnswerName("engine"), cut(spaced, places)) == spaced


def test_once_the_name_is_known_to_be_right_no_piece_waits_for_its_end() -> None:
    name = AnswerName("engine")
    assert name.in_piece(EVENTS) == EVENTS
    assert name.in_piece(b'data: {"mo') == b'data: {"mo'


def test_a_whole_answer_says_the_name_at_the_top_and_keeps_the_others() -> None:
    call = {"type": "tool_use", "input": {"model": "engine"}}
    body = json.dumps({"content": [call], "model": "engine", "usage": {}}).encode()
    answer = json.loads(AnswerName.in_whole("asked", body))
    assert answer == {"content": [call], "model": "asked", "usage": {}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b'["model"]',
        b'{"model":3}',
        b'{"model":"asked"}',
        b'{"model": "asked"}',
        b'{"a":1}',
    ],
)
def test_what_has_no_name_or_the_right_one_stays(body: bytes) -> None:
    assert AnswerName.in_whole("asked", body) is body


@pytest.mark.parametrize("kind", [AnswerName, HidingAnswerName])
def test_a_line_in_very_many_pieces_takes_no_longer_than_in_few(kind: type[AnswerName]) -> None:
    """What waits for its end is not copied with each piece."""
    name, piece, count = kind("m"), b"x" * 65_536, 1_000
    assert name.in_piece(b'data: {"model":"a","x":"') == b""
    begun = time.process_time()
    for _ in range(count):
        assert name.in_piece(piece) == b""
    assert time.process_time() - begun < 1  # 12 s with copies
    whole = name.in_piece(b'"}\n')
    assert whole.startswith(b'data: {"model":"m","x":"x')
    assert len(whole) > count * len(piece)
