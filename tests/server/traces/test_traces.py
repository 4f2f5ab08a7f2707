"""What is noted of requests is sent in batches; a collector that is gone costs traces only."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.support.asking import Clock
from tests.support.collector import decoded
from tests.support.optional import traces_there
from tests.support.past_requests import past
from trio_gateway.bus import Bus
from trio_gateway.config.schema import TracesConfig
from trio_gateway.server.api.trace_context import Sampler
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.traces.tally import Loss, TraceTally

traces_there()

from trio_gateway.server.traces import otlp, traces  # noqa: E402
from trio_gateway.server.traces.spans import spans_of  # noqa: E402

URL = "http://127.0.0.1:4318/v1/traces"
SAMPLER = Sampler(1.0)


def traced(number: int, **fields: Any) -> RequestRecord:
    record = past(number, **fields)
    record.trace = SAMPLER.joined(None)
    return record


class World(traces.Traces):
    """`batches`: how many requests each had. `errors`: of the next ones. `takes_s`: each."""

    def __init__(self) -> None:
        self.bus, self.tally = Bus(), TraceTally()
        super().__init__(self.bus, TracesConfig(endpoint=URL), self.tally)
        self.batches: list[int] = []
        self.errors: list[Exception] = []
        self.takes_s = 0.0

    async def _send(self, client: object, batch: list[RequestRecord]) -> None:
        await trio.sleep(self.takes_s)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(len(batch))

    def ends(self, count: int) -> None:
        for number in range(count):
            self.bus.publish(traced(number))


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        yield world
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_ends_within_a_second_is_one_batch(autojump_clock: Clock) -> None:
    async with running() as world:
        world.ends(2)
        await trio.sleep(0.5)
        world.ends(3)
        await trio.sleep(1.0)
        assert (world.batches, world.tally.sent) == ([5], 5)


async def test_many_are_sent_without_a_pause(autojump_clock: Clock) -> None:
    async with running() as world:
        world.ends(3 * traces.BATCH_MAX + 1)
        await trio.sleep(2.5)
        assert world.batches == [traces.BATCH_MAX] * 3 + [1]


async def test_what_is_not_sampled_is_not_noted(autojump_clock: Clock) -> None:
    async with running() as world:
        world.bus.publish(past(1))
        world.bus.publish(past(2, trace=Sampler(0.0).joined(None)))
        await trio.sleep(5)
    assert (world.batches, world.tally.sent) == ([], 0)


async def test_a_shutdown_sends_what_is_noted(autojump_clock: Clock) -> None:
    async with running() as world:
        world.ends(traces.BATCH_MAX + 1)
    assert world.batches == [traces.BATCH_MAX, 1]


async def test_a_shutdown_waits_for_no_slow_collector(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        world.takes_s = 60.0
        world.ends(3)
        await trio.sleep(2)
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(traces.FLUSH_S)
    assert world.tally.lost == {Loss.STOPPED: 3}
    assert "the traces of the last 3 requests are not sent" in caplog.text


async def test_a_dead_collector_gets_them_when_it_is_back(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        world.errors = [traces.Unreachable("nobody answers") for _ in range(3)]
        world.ends(2)
        await trio.sleep(60)
        assert (world.batches, world.tally.sent) == ([2], 2)
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == [
        "ERROR",
        "WARNING",
    ]


async def test_what_is_too_much_for_a_slow_one_is_lost_and_counted(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        world.takes_s = 5.0
        world.ends(traces.WAITING_MAX + 7)
        assert world.tally.lost == {Loss.QUEUE_FULL: 7}
        await trio.sleep(1000)
        assert world.tally.sent == traces.WAITING_MAX
    assert caplog.text.count("the traces of 7 requests are lost: the collector is too slow") == 1


async def test_what_is_refused_is_lost_and_what_follows_is_sent(autojump_clock: Clock) -> None:
    async with running() as world:
        world.errors = [traces.Refused("HTTP 400")]
        world.ends(2)
        await trio.sleep(3)
        world.ends(1)
        await trio.sleep(3)
        assert (world.batches, world.tally.lost) == ([1], {Loss.REFUSED: 2})


async def test_a_bug_costs_its_batch_only(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        world.errors = [KeyError("oops")]
        world.ends(2)
        await trio.sleep(3)
        world.ends(1)
        await trio.sleep(3)
        assert (world.batches, world.tally.lost) == ([1], {Loss.REFUSED: 2})
    assert "a bug in the gateway" in caplog.text


def test_half_of_a_pair_of_surrogates_is_sent_all_the_same() -> None:
    body = otlp.encode(spans_of(traced(1, asked="m\ud83d")), {"service.name": "g"}, "1")
    resource, (request, *_) = decoded(body)
    assert resource == {"service.name": "g"}
    assert request.attributes["gen_ai.request.model"] == "m?"


def test_what_a_collector_says_of_those_that_it_did_not_take() -> None:
    assert otlp.rejected(b"") == (0, "")
    assert otlp.rejected(b"{}") == (0, "")
    assert otlp.rejected(b"\x0a\x07\x08\x03\x12\x03why") == (3, "why")
