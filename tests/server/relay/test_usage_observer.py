"""What an answer's usage teaches, and when it teaches nothing."""

from __future__ import annotations

import pytest

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.server.relay.usage_observer import UsageObserver

JSON, EVENTS = b"application/json", b"text/event-stream; charset=utf-8"
USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":2}}'
LEARNT = [Usage(7, 2)]


def learnt_of(
    *pieces: bytes, kind: bytes = JSON, status: int = 200, complete: bool = True
) -> list[Usage]:
    learnt: list[Usage] = []
    observer = UsageObserver(learnt.append)
    observer.begins(status, [(b"content-type", kind)])
    for piece in pieces:
        observer.continues(piece)
    if complete:
        observer.completes()
    return learnt


def test_a_whole_answer_teaches() -> None:
    assert learnt_of(USAGE) == LEARNT


def test_a_stream_teaches_with_its_last_event_even_if_that_came_in_two_pieces() -> None:
    events = b'data: {"choices":[]}\n\n' * 9 + b"data: " + USAGE + b"\n\ndata: [DONE]\n\n"
    cut = events.index(b"completion")
    assert learnt_of(events, kind=EVENTS) == LEARNT
    assert learnt_of(events[:cut], events[cut:], kind=EVENTS) == LEARNT


@pytest.mark.parametrize(
    ("pieces", "kind", "status", "complete"),
    [
        ((USAGE,), JSON, 400, True),
        ((USAGE,), JSON, 200, False),
        ((b"{}",), JSON, 200, True),
        ((b"[", USAGE), JSON, 200, True),
        ((b"data: " + USAGE + b"\n\n",), EVENTS, 200, False),
        ((), EVENTS, 200, True),
    ],
    ids=["an error", "broken off", "no usage", "in pieces", "a broken stream", "nothing"],
)
def test_nothing_else_teaches(
    pieces: tuple[bytes, ...], kind: bytes, status: int, complete: bool
) -> None:
    assert learnt_of(*pieces, kind=kind, status=status, complete=complete) == []
