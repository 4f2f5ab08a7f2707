"""The last lines of the gateway and of its engines, and those that come."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat, error_of, header
from tests.support.feed_reader import reading
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.server.feed.logs import AHEAD_MAX

LOGS = "/gateway/logs"
LOG = logging.getLogger("trio_gateway.test")


async def lines(stack: Stack, query: str) -> list[dict[str, Any]]:
    answer = await stack.get(f"{LOGS}{query}")
    assert answer.status == 200
    assert header(answer, "content-type") == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [line["text"] for line in found]


async def test_the_gateways_own_lines(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for number in range(300):
            LOG.warning("line %d", number)
        assert texts(await lines(stack, ""))[-1] == "line 299"
        assert len(await lines(stack, "")) == 200
        assert texts(await lines(stack, "?engine=gateway&lines=2")) == ["line 298", "line 299"]
        assert await lines(stack, "?lines=0") == []
        (last,) = await lines(stack, "?lines=1")
    assert (last["level"], last["source"]) == ("WARNING", "gateway")
    assert last["at_s"] > 1_700_000_000


async def test_an_engines_lines_outlive_it(autojump_clock: Clock) -> None:
    given = config(model("m", variant(4096), variant(8192)), model("n", aliases=("nn",)))
    async with running_stack(given) as stack:
        for number in range(7):
            await stack.post(CHAT, chat("m"))
            stack.manager.lines.keep("m:4096", [b"of its life %d" % number])
            await stack.manager.unload("m")
            stack.manager.lines.keep("m:4096", [b"late in %d" % number])
        of_m = texts(await lines(stack, "?engine=m"))
        assert of_m == [f"{said} {n}" for n in range(2, 7) for said in ("of its life", "late in")]
        assert texts(await lines(stack, "?engine=m:4096&lines=1")) == ["late in 6"]
        assert await lines(stack, "?engine=m:8192") == []
        await stack.post(CHAT, chat("n"))
        stack.manager.lines.keep("n:4096", [b"\x1b[31mred\x1b[0m"])
        (line,) = await lines(stack, "?engine=nn")
        assert (line["source"], line["text"]) == ("n:4096", "\x1b[31mred\x1b[0m")
        both = texts(await lines(stack, "?engine=n&engine=m&lines=2"))
        assert both == ["late in 6", "\x1b[31mred\x1b[0m"]


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("?engine=x", 404, 'there is no model "x"'),
        ("?engine=m:9", 404, 'm has no variant "9"'),
        ("?lines=many", 400, "expected a number from 0 to 2000"),
        ("?lines=-1", 400, "expected a number"),
        ("?follow=perhaps", 400, "expected true or false"),
    ],
)
async def test_what_cannot_be_given(
    autojump_clock: Clock, query: str, status: int, message: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.get(f"{LOGS}{query}")
        assert answer.status == status
        assert message in error_of(answer)["message"]


async def test_following_goes_on_with_what_comes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        LOG.error("before")
        path = f"{LOGS}?engine=gateway&engine=m&lines=1&follow=1"
        async with reading(stack, {"Accept": "text/event-stream"}, path) as reader:
            assert (await reader.next("log")).data["text"] == "before"
            LOG.error("one")
            assert (await reader.next("log")).data["text"] == "one"
            await stack.post(CHAT, chat("m"))
            stack.manager.lines.keep("m:4096", [b"two"])
            event = await reader.next("log")
            while event.data["source"] == "gateway":
                event = await reader.next("log")
            assert event.data["text"] == "two"
            with trio.fail_after(60):
                while reader.comments < 2:
                    await reader.read()


async def test_who_follows_has_an_answer_at_once(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for path in (f"{LOGS}?engine=m&follow=1", f"{LOGS}?engine=m&follow=1&lines=0"):
            begun = trio.current_time()
            async with reading(stack, {}, path) as reader:
                assert (reader.status, trio.current_time() - begun) == (200, 0)


async def test_lines_of_other_threads_come_as_well(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        path = f"{LOGS}?lines=0&follow=1"
        async with reading(stack, {"Accept": "text/event-stream"}, path) as reader:
            other = threading.Thread(target=LOG.error, args=("from elsewhere",))
            other.start()
            other.join()
            assert (await reader.next("log")).data["text"] == "from elsewhere"


async def test_a_slow_follower_is_told_what_it_missed(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        path = f"{LOGS}?lines=0&follow=1"
        async with reading(stack, {"Accept": "text/event-stream"}, path) as reader:
            for number in range(AHEAD_MAX + 7):
                LOG.error("line %d", number)
            left_out, first = await reader.next("log"), await reader.next("log")
        page = (await stack.get("/metrics")).content.decode()
    assert "trio_gateway_log_lines_dropped_total 7.0\n" in page
    assert left_out.data["text"] == "7 lines are left out here: this reader was too slow"
    assert first.data["text"] == "line 7"


async def test_warnings_are_in_the_feed(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as feed:
        await feed.next("snapshot")
        LOG.info("nothing much")
        LOG.warning("take care")
        assert (await feed.next("log")).data["text"] == "take care"
