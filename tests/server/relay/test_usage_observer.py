"""What an answer's usage teaches, and when it teaches nothing."""

from __future__ import annotations

import pytest

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, stream
from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.scheduling.progress import AnswerProgress
from trio_gateway.models.selection import Selection
from trio_gateway.server.api.token_events import opening_of
from trio_gateway.server.relay.usage_observer import UsageObserver

USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":2}}'
LEARNT = [Usage(7, 2)]


def learnt_of(*pieces: bytes, complete: bool = True) -> list[Usage]:
    learnt: list[Usage | None] = []
    observer = UsageObserver(learnt.append, AnswerProgress(7, None, is_seen=True))
    observer.begins(200, [])
    for piece in pieces:
        observer.continues(piece)
    if complete:
        observer.completes()
    return [usage for usage in learnt if usage is not None]


def test_a_stream_teaches_with_its_last_event_even_if_that_came_in_two_pieces() -> None:
    events = b'data: {"choices":[]}\n\n' * 9 + b"data: " + USAGE + b"\n\ndata: [DONE]\n\n"
    cut = events.index(b"completion")
    assert learnt_of(events) == LEARNT
    assert learnt_of(events[:cut], events[cut:]) == LEARNT


@pytest.mark.parametrize(
    ("pieces", "complete"),
    [((b"data: " + USAGE + b"\n\n",), False), ((), True), ((b"[", USAGE), True)],
    ids=["broken off", "nothing", "no events"],
)
def test_no_other_stream_teaches(pieces: tuple[bytes, ...], complete: bool) -> None:
    assert learnt_of(*pieces, complete=complete) == []


@pytest.mark.parametrize(
    ("script", "status", "streams", "expected"),
    [
        ([USAGE], 200, False, LEARNT),
        ([USAGE], 400, False, []),
        ([b"{}"], 200, False, []),
        ([EVENT, b"data: " + USAGE + b"\n\n", DONE], 200, True, LEARNT),
        ([EVENT, DONE], 200, True, []),
    ],
    ids=["whole", "an error", "no usage", "a stream", "a stream without"],
)
async def test_what_is_answered_teaches(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    script: list[bytes],
    status: int,
    streams: bool,
    expected: list[Usage],
) -> None:
    learnt: list[Usage] = []

    def note(_: Selection, usage: Usage) -> None:
        learnt.append(usage)

    async with running_stack(config(model("m"))) as stack:
        monkeypatch.setattr(stack.gateway.front.selector, "note_answer", note)
        stack.engines.scripts, stack.engines.status = [script], status
        if streams:
            await stream(stack, chat(stream=True))
        else:
            await stack.post(CHAT, chat())
    assert learnt == expected


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        ([EVENT] * 3, 3),
        ([EVENT + EVENT, EVENT], 3),
        ([EVENT[:20], EVENT[20:]], 1),
        ([b"event: content_block_delta\ndata: {}\n\n" * 5], 5),
        ([b"data: {}\r\n\r\n"] * 4, 4),
    ],
)
def test_events_are_counted_as_they_come(pieces: list[bytes], tokens: int) -> None:
    progress = AnswerProgress(7, None, is_seen=True)
    observer = UsageObserver(lambda usage: None, progress)
    for piece in pieces:
        observer.continues(piece)
    assert (progress.tokens, progress.is_complete) == (tokens, False)
    observer.completes()
    assert progress.is_complete


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'


@pytest.mark.parametrize("count", [1, 2, 4, 5, 50])
def test_what_opens_a_stream_is_no_token_once_somebody_has_looked(count: int) -> None:
    progress = AnswerProgress(7, None, is_seen=True)
    progress.begin(1.0, ROLE + EVENT)
    observer = UsageObserver(lambda usage: None, progress)
    for piece in [ROLE + EVENT, *[EVENT] * (count - 1)]:
        observer.continues(piece)
    assert round(progress.tokens) > count
    progress.opening = opening_of(progress.first)
    assert round(progress.tokens) == count
