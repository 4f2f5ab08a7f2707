"""`/gateway/events?logs=…`: lines of logs among the events of the feed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat, error_of
from tests.support.feed_reader import FEED, Reader, reading
from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.server.feed.followed_lines import PIECE_LINES
from trio_gateway.server.feed.logs import AHEAD_MAX

ADMIN, OWN = "tg-admin-0123456789", "tg-own-01234567890"
KEYS = AccessConfig(
    allowed_hosts=("gateway",),
    api_keys=(
        ApiKey(name="admin", secret=ADMIN, admin=True),
        ApiKey(name="own", secret=OWN),
    ),
)
LOG = logging.getLogger("trio_gateway.test")


async def next_lines(reader: Reader) -> list[tuple[str, str]]:
    data = (await reader.next("lines")).data
    return [(line["source"], line["text"]) for line in data["lines"]]


async def test_lines_come_after_the_snapshot_and_go_on(autojump_clock: Clock) -> None:
    given = config(model("m", variant(4096), variant(8192)), model("n"))
    async with running_stack(given) as stack:
        for name in ("m", "n"):
            await stack.post(CHAT, chat(name))
        stack.manager.lines.keep("m:4096", [b"m %d" % number for number in range(5)])
        for said in ("long before", "just before", "before"):
            LOG.warning(said)
        path = f"{FEED}?logs=gateway&logs=m&lines=2"
        async with reading(stack, path=path) as reader:
            event = await reader.next("snapshot")
            first = await reader.next("lines")
            assert (event.data["admin"], first.data["begins"], first.id) == (True, True, "")
            told = [(line["source"], line["text"]) for line in first.data["lines"]]
            assert len(told) == 4  # so many of each
            assert {("m:4096", "m 3"), ("m:4096", "m 4"), ("gateway", "before")} < {*told}
            times = [line["at_s"] for line in first.data["lines"]]
            assert times == sorted(times)
            stack.manager.lines.keep("n:4096", [b"of another"])
            stack.manager.lines.keep("m:4096", [b"m 5", b"m 6"])
            assert await next_lines(reader) == [("m:4096", "m 5"), ("m:4096", "m 6")]
            await stack.post(CHAT, chat("m"))
            assert (await reader.next("request")).id != ""


async def test_a_log_without_lines_begins_as_well(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        async with reading(stack, path=f"{FEED}?logs=m") as reader:
            first = await reader.next("lines")
        assert first.data == {"lines": [], "begins": True}
        async with reading(stack) as reader:
            await reader.next("snapshot")
            LOG.warning("not asked for")
            with trio.move_on_after(20):
                await reader.next("lines")
        assert "lines" not in [event.name for event in reader.events]


async def test_who_comes_back_gets_its_lines_anew_and_no_second_snapshot(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        async with reading(stack, path=f"{FEED}?logs=gateway&lines=1") as reader:
            last_id = (await reader.next("snapshot")).id
            await reader.next("lines")
        LOG.warning("meanwhile")
        again = {"Last-Event-ID": last_id}
        async with reading(stack, again, f"{FEED}?logs=gateway&lines=1") as reader:
            assert await next_lines(reader) == [("gateway", "meanwhile")]
            assert "snapshot" not in [event.name for event in reader.events]


async def test_many_lines_come_in_pieces_and_what_is_missed_is_told(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        path = f"{FEED}?logs=gateway&lines=0"
        async with reading(stack, path=path) as reader:
            await reader.next("lines")
            for number in range(AHEAD_MAX + 7):
                LOG.warning("line %d", number)
            found = list[tuple[str, str]]()
            while len(found) < AHEAD_MAX + 1:
                piece = await next_lines(reader)
                assert len(piece) <= PIECE_LINES
                found += piece
    assert "7 lines are left out here" in found[0][1]
    assert (found[1][1], found[-1][1]) == ("line 7", f"line {AHEAD_MAX + 6}")


@pytest.mark.parametrize(
    ("query", "key", "status", "code"),
    [
        ("logs=gateway", OWN, 403, "admin_only"),
        ("logs=x", ADMIN, 404, "model_not_found"),
        ("logs=m&lines=many", ADMIN, 400, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_had(
    autojump_clock: Clock, query: str, key: str, status: int, code: str
) -> None:
    async with running_stack(config(model("m"), access=KEYS)) as stack:
        headers = [("Authorization", f"Bearer {key}")]
        answer: Any = await stack.http.request(
            "GET", f"http://gateway{FEED}?{query}", headers=headers
        )
        assert (answer.status, error_of(answer)["code"]) == (status, code)
