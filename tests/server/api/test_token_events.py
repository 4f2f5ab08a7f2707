"""How many tokens have come of a stream that does not say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from trio_gateway.server.api.token_events import SeenEvents

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def event(data: Json, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def text(said: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": said, "finish_reason": finish}]})


def named(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}})
RESPONSE = {"id": "r", "status": "in_progress", "instructions": "Be brief. " * 20}
# What opens a stream, an event with a token, and what ends it: as llama-server has them, and vLLM.
STREAMS = {
    "chat": ([chunk(role="assistant", content=None)], chunk(content="a"), [chunk("stop"), DONE]),
    "chat, vLLM": ([chunk(role="assistant", content="")], chunk(content="a"), [USAGE, DONE]),
    "thoughts": ([chunk(role="assistant")], chunk(reasoning_content="a"), [chunk("stop")]),
    "a call": ([chunk(role="assistant", content=None)], chunk(tool_calls=[CALL]), [DONE]),
    "role with each": ([], chunk(role="assistant", content="a"), [chunk("stop"), DONE]),
    "text": ([], text("a"), [text("", "length"), DONE]),
    "llama.cpp's own": ([], event({"content": "a", "stop": False}), [event({"stop": True})]),
    "messages": (
        [
            named("message_start", message={"id": "m", "content": [], "usage": {}}),
            named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            named("ping"),
        ],
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}),
        [named("content_block_stop", index=0), named("message_delta", delta={}), DONE],
    ),
    "responses": (
        [
            named("response.created", response=RESPONSE),
            named("response.in_progress", response=RESPONSE),
            named("response.output_item.added", item={"type": "message"}),
            named("response.content_part.added", part={"type": "output_text", "text": ""}),
        ],
        named("response.output_text.delta", delta="a"),
        [named("response.output_text.done", text="aaa")],
    ),
    "comments": ([b": waits\n\n", b": waits\n\n"], chunk(content="a"), [b": still\n\n"]),
}  # fmt: skip


def seen(pieces: Sequence[bytes], kept: int = 4) -> int:
    size = sum(map(len, pieces))
    return SeenEvents.of(pieces[0] if pieces else b"", pieces[-kept:], size).tokens


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 7, 300])
@pytest.mark.parametrize("ends", [False, True])
def test_only_events_with_some_of_the_answer_count(name: str, tokens: int, *, ends: bool) -> None:
    opening, token, ending = STREAMS[name]
    begins = [b"".join([*opening, token]), *[token] * (tokens - 1)] if tokens else [*opening]
    pieces = [*begins, *(ending if ends else ())]
    assert seen(pieces) == tokens  # as llama-server writes them: what opens comes with the first
    assert seen([b"".join(pieces)]) == tokens
    assert seen([piece.replace(b"\n", b"\r\n") for piece in pieces]) == tokens


def test_what_opens_and_comes_alone_is_out_by_little() -> None:
    opening, token, _ = STREAMS["messages"]
    assert 100 <= seen([*opening, *[token] * 100]) <= 103


def test_an_event_that_is_cut_in_two_is_one() -> None:
    token = chunk(content="a")
    assert seen([token, token[:20], token[20:]]) == 2
    assert seen([token[:20]]) == 0
    assert seen([]) == 0


def test_no_more_than_a_part_of_a_burst_is_looked_at() -> None:
    token = chunk(content="a")
    assert seen([token * 50_000] * 3) == pytest.approx(150_000, rel=0.01)
