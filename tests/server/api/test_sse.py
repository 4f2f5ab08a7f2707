"""Server-sent events, written and read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.server.api.sse import assembled_text, error_event, events, is_event_stream

BODY = {"error": {"message": "the engine crashed\n\nbadly", "type": "engine_error"}}
EVENT = b"data: " + msgspec.json.encode(BODY) + b"\n\n"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        (" text/event-stream ", True),
        ("application/json", False),
        ("text/event-stream-not", False),
        ("", False),
    ],
)
def test_an_event_stream_is_known_by_its_content_type(content_type: str, expected: bool) -> None:
    assert is_event_stream(content_type) is expected


@pytest.mark.parametrize("last_sent", [b"", b"data: {}\n\n", b"data: {}\r\n\r\n"])
def test_an_error_event_follows_a_whole_event_directly(last_sent: bytes) -> None:
    assert error_event(BODY, last_sent=last_sent) == EVENT


@pytest.mark.parametrize("last_sent", [b'data: {"cho', b"data: {}", b"data: {}\n", b"data: {}\r\n"])
def test_an_error_event_first_ends_an_event_that_was_cut(last_sent: bytes) -> None:
    assert error_event(BODY, last_sent=last_sent) == b"\n\n" + EVENT


@given(st.binary(max_size=30).filter(lambda piece: b"\r" not in piece))
def test_an_error_event_is_read_as_an_event_whatever_was_sent_before(last_sent: bytes) -> None:
    stream = last_sent + error_event(BODY, last_sent=last_sent)
    *_, block, rest = stream.split(b"\n\n")
    assert rest == b""
    assert list(events(block.strip())) == [BODY]


def chunk(**choice: object) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"


def test_a_streamed_chat_is_assembled_with_its_reasoning() -> None:
    stream = chunk(delta={"role": "assistant", "content": None})
    stream += chunk(delta={"reasoning_content": "hm, "}) + b": a comment\n\n"
    stream += chunk(delta={"content": "Grüß "}) + chunk(delta={"content": "Gott"})
    stream += b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n'
    assert assembled_text(stream) == "hm, Grüß Gott"


def test_a_streamed_completion_is_assembled() -> None:
    assert assembled_text(chunk(text="once ") + chunk(text="more")) == "once more"


def test_a_line_separator_in_a_text_does_not_end_the_event() -> None:
    assert assembled_text('data: {"choices":[{"text":"a\u2028b\x85c"}]}\n\n'.encode()) == (
        "a\u2028b\x85c"
    )


def test_tool_calls_are_shown_as_they_came() -> None:
    stream = chunk(delta={"tool_calls": [{"function": {"arguments": "{}"}}]})
    assert '"arguments":"{}"' in assembled_text(stream)


@pytest.mark.parametrize(
    "line",
    [
        b"data: [1, 2]",
        b'data: "text"',
        b'data: {"choices": "text"}',
        b'data: {"choices": [null, 3, "x"]}',
        b'data: {"choices": [{"delta": "text", "text": 5}]}',
        b'data: {"choices": [{"delta": {"content": ["x"]}}]}',
        b'data: {"choices": "\xff"}',
        b"data: {",
        b"data: " + b"[" * 5000 + b"]" * 5000,
    ],
    ids=["list", "text", "choices", "choice", "delta", "content", "bytes", "cut", "deep"],
)
def test_events_of_another_shape_are_left_out(line: bytes) -> None:
    stream = chunk(text="before ") + line + b"\n\n" + chunk(text="after")
    assert assembled_text(stream) == "before after"


@given(st.lists(st.text(max_size=20), max_size=10))
def test_whatever_is_streamed_is_assembled(texts: list[str]) -> None:
    assert assembled_text(b"".join(chunk(delta={"content": t}) for t in texts)) == "".join(texts)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(stream: bytes) -> None:
    assert isinstance(assembled_text(b"data:" + stream), str)
