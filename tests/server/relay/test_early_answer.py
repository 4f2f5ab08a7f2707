"""When a client that waits is told so, by which task, and how that task ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.asking import Clock
from tests.support.schema_values import model
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.selection import Selection
from trio_gateway.server.http.scopes import TornStream
from trio_gateway.server.http.types import ClientGone, Message
from trio_gateway.server.relay.early_answer import EVENTS, EarlyAnswer, EarlyAnswers
from trio_gateway.server.relay.wait import Wait

KEEPALIVE_S = 10.0
SELECTION = Selection(
    model=model("m"), endpoint="chat/completions", prompt=1, source=CountSource.BOUND, answer=None,
    need=17, start_need=17, context=4096, reason="",
)  # fmt: skip


class Client:
    """What it was sent, and when. `stalls_s`: how long each message takes."""

    def __init__(self, stalls_s: float = 0.0, error: Exception | None = None) -> None:
        self.got: list[tuple[float, str]] = []
        self._stalls_s, self._error = stalls_s, error

    async def send(self, message: Message) -> None:
        if self._error is not None:
            raise self._error
        await trio.sleep(self._stalls_s)
        said = message.get("body", b"").decode().strip()
        self.got.append((round(trio.current_time(), 6), said or message["type"]))


def begin(early_answers: EarlyAnswers, client: Client) -> EarlyAnswer:
    return early_answers.begin(Wait(), EVENTS, SELECTION, client.send, [])


@asynccontextmanager
async def running() -> AsyncIterator[EarlyAnswers]:
    async with trio.open_nursery() as nursery:
        early_answers = EarlyAnswers(KEEPALIVE_S)
        await nursery.start(early_answers.run)
        yield early_answers
        nursery.cancel_scope.cancel(reason="the test is over")


class Spawned(trio.abc.Instrument):
    def __init__(self) -> None:
        self.tasks: list[str] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task.name)


async def test_who_is_answered_in_time_is_told_nothing_and_gets_no_task(
    autojump_clock: Clock,
) -> None:
    async with running() as early_answers:
        spawned, client = Spawned(), Client()
        trio.lowlevel.add_instrument(spawned)
        for _ in range(5):
            early = begin(early_answers, client)
            await trio.sleep(KEEPALIVE_S - 0.1)
            assert await early.end() is False
        await trio.sleep(100)
        trio.lowlevel.remove_instrument(spawned)
    assert client.got == []
    assert spawned.tasks == []


async def test_each_is_told_when_its_own_patience_ends(autojump_clock: Clock) -> None:
    async with running() as early_answers:
        clients = [Client() for _ in range(3)]
        earlies = []
        for client in clients:
            earlies.append(begin(early_answers, client))
            await trio.sleep(3)
        assert await earlies[1].end() is False
        await trio.sleep(13)
        assert await earlies[0].end() is True
        assert await earlies[2].end() is True
        first_token = ": waits for the first token (0 s so far)"
        start = "http.response.start"
        assert clients[0].got == [(10, start), (10, first_token), (20, first_token)]
        assert clients[1].got == []
        assert clients[2].got == [(16, start), (16, first_token)]


async def test_an_answer_waits_until_a_comment_is_sent(autojump_clock: Clock) -> None:
    async with running() as early_answers:
        client = Client(stalls_s=2.0)
        early = begin(early_answers, client)
        await trio.sleep(KEEPALIVE_S + 3)
        assert await early.end() is True
        assert trio.current_time() == KEEPALIVE_S + 4
        assert len(client.got) == 2
        await trio.sleep(100)
        assert len(client.got) == 2


@pytest.mark.parametrize("when", ["in time", "in a comment", "as it waits for a comment's end"])
async def test_of_a_request_that_is_cancelled_nothing_more_is_sent(
    autojump_clock: Clock, when: str
) -> None:
    async with running() as early_answers:
        client = Client(stalls_s=2.0)
        after_s = {"in time": 1.0}.get(when, KEEPALIVE_S + 3)

        async def request() -> None:
            early = begin(early_answers, client)
            try:
                if when.startswith("as"):
                    await trio.sleep(KEEPALIVE_S + 2.5)
                    await early.end()
                await trio.sleep_forever()
            except trio.Cancelled:
                await early.abandon()
                raise

        with trio.move_on_after(after_s):
            await request()
        assert trio.current_time() == after_s
        told = len(client.got)
        assert told == (0 if when == "in time" else 1)
        await trio.sleep(100)
        assert len(client.got) == told


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("gone"), TornStream), (ClientGone("gone"), ClientGone)]
)
async def test_a_client_that_cannot_be_told_is_no_matter_to_others(
    autojump_clock: Clock, error: Exception, raised: type[Exception]
) -> None:
    async with running() as early_answers:
        broken, other = Client(error=error), Client()
        first, second = begin(early_answers, broken), begin(early_answers, other)
        await trio.sleep(KEEPALIVE_S + 1)
        with pytest.raises(raised, match="gone"):
            await first.end()
        assert await second.end() is True
        assert len(other.got) == 2
