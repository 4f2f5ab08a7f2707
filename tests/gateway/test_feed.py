"""What those get who follow the gateway: a snapshot, then what changes, and where to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, header, stream
from tests.support.feed_reader import FEED, Event, reading
from tests.support.past_requests import past
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.engine.others import Others
from trio_gateway.server.feed.feed import LINGER_S, NOTED_MAX
from trio_gateway.server.handlers.watching import OF_A_KEY, WATCHERS_MAX
from trio_gateway.server.http.types import HALF_CLOSED_S
from trio_gateway.server.records.request_book import RequestBegan

ANSWER = b'{"choices":[{"message":{"content":"Hi"}}]}'


async def test_a_reader_gets_all_that_there_is_first(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", aliases=("mm",)))) as stack:
        await stack.post(CHAT, chat())
        async with reading(stack) as reader:
            snapshot = await reader.next()
    assert snapshot.name == "snapshot"
    run, _, number = snapshot.id.rpartition("-")
    data = snapshot.data
    assert (data["run"], data["admin"], number.isdigit()) == (run, True, True)
    assert [pool["name"] for pool in data["pools"]] == ["primary", "secondary"]
    (engine,) = data["engines"]
    assert (engine["model"], engine["state"], engine["leases"]) == ("m", "ready", 0)
    assert engine["next"] == "stops in 300 s if nobody asks"
    assert data["requests"] == []
    (over,) = data["recent"]
    assert (over["stage"], over["outcome"], over["model"]) == ("done", "ok", "m")
    assert [moment["change"] for moment in data["timeline"]] == ["starting", "ready"]
    (known,) = data["models"]
    assert (known["name"], known["aliases"], known["state"]) == ("m", ["mm"], "loaded")
    assert known["variants"][0]["context"] == 4096
    assert known["variants"][0]["load_is"] == "measured"
    assert data["held"]["buffered_bytes"] == 0
    assert data["captures"] is None


async def test_then_what_changes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await reader.next("snapshot")
        stack.engines.scripts = [[1.0, EVENT, 3.0, EVENT * 20, 3.0, DONE]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, stack, chat(stream=True))
            stages, engines = list[str](), list[str]()
            while not stages or stages[-1] != "done":
                event = await reader.next("request", "engine")
                if event.name == "engine":
                    engines.append(event.data["state"])
                else:
                    stages.append(event.data["stage"])
        seen = [*dict.fromkeys(stages)]  # it may be looked at before it is read
        assert seen[seen.index("waiting") :] == ["waiting", "reading", "answering", "done"]
        assert [*dict.fromkeys(engines)] == ["starting", "ready"]
        idle = await reader.next("engine")
        assert (idle.data["leases"], idle.data["idle_s"]) == (0, pytest.approx(0.2, abs=0.3))
        await stack.manager.unload("m")
        gone = await reader.next("engine_gone")
    assert gone.data == {"engine": 1}
    changes = [event.data["change"] for event in reader.events if event.name == "moment"]
    assert changes == ["starting", "ready", "stopping", "gone"]
    numbers = [int(event.id.rpartition("-")[2]) for event in reader.events]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]


# -- going on where it broke off ------------------------------------------------------------------


async def one_request(stack: Stack) -> None:
    await stack.post(CHAT, chat())


@pytest.mark.parametrize("by_header", [True, False])
async def test_who_comes_back_goes_on_where_it_was(autojump_clock: Clock, by_header: bool) -> None:
    async with running_stack(config(model("m"))) as stack:
        async with reading(stack) as reader:
            last = await reader.next("snapshot")
        await one_request(stack)
        headers = {"Last-Event-ID": last.id} if by_header else {}
        path = FEED if by_header else f"{FEED}?last_event_id={last.id}"
        async with reading(stack, headers, path) as reader:
            assert reader.comments == 1
            first = await reader.next()
            assert number_of(first) == number_of(last) + 1
            while (event := await reader.next("request")).data["stage"] != "done":
                pass
            assert event.data["outcome"] == "ok"
        assert "snapshot" not in {event.name for event in reader.events}


async def test_of_too_many_requests_at_once_none_is_told_and_all_are_counted(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        async with reading(stack) as reader:
            first = await reader.next("snapshot")
            for number in range(NOTED_MAX + 5):
                stack.gateway.bus.publish(past(number))
            assert (await reader.next("behind")).data["reason"]
            assert number_of(await reader.next("snapshot")) >= number_of(first)
        assert "request" not in {event.name for event in reader.events}
        assert stack.gateway.feed.missed >= NOTED_MAX + 5  # and what else had changed


@pytest.mark.parametrize(
    "last_id",
    ["", "x", "-", "beef-3", "RUN-", "RUN-99999", "RUN-0", "RUN-1e3", "RUN-³", f"RUN-{'9' * 400}"],
)
async def test_what_it_does_not_know_begins_anew(autojump_clock: Clock, last_id: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        headers = {"Last-Event-ID": last_id.replace("RUN", stack.gateway.feed.run_id)}
        async with reading(stack), reading(stack, headers) as reader:
            assert (await reader.next()).name == "snapshot"


async def test_after_a_while_without_readers_it_begins_anew(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        async with reading(stack) as reader:
            last = await reader.next("snapshot")
        await trio.sleep(LINGER_S + 10)
        assert not stack.gateway.feed.is_awake
        assert not stack.gateway.bus.has_listeners(RequestBegan)
        async with reading(stack, {"Last-Event-ID": last.id}) as reader:
            again = await reader.next()
    assert again.name == "snapshot"
    assert number_of(again) > number_of(last)


class SlowToEnd:
    """Others' memory, where the last reading takes a second."""

    async def watch(self, tell: Callable[[Mapping[str, int | None]], None]) -> None:
        tell({"primary": 5})
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.sleep(1)


async def test_who_comes_while_it_goes_to_sleep_wakes_it_again(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        feed = stack.gateway.feed
        feed._others = cast(Others, SlowToEnd())
        async with reading(stack) as reader:
            await reader.next("snapshot")
            assert (await reader.next("pool")).data["other_bytes"] == 5
        with trio.fail_after(100):
            while feed.is_awake:  # noqa: ASYNC110 - nobody is told
                await trio.sleep(0.1)
        begun = trio.current_time()
        async with reading(stack) as reader:
            await reader.next("snapshot")
        assert trio.current_time() - begun < 2


def number_of(event: Event) -> int:
    return int(event.id.rpartition("-")[2])


# -- who reads, and how much ----------------------------------------------------------------------


async def test_a_reader_hears_from_a_gateway_where_nothing_happens(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await reader.next("snapshot")
        begun, at_first = trio.current_time(), reader.comments
        while reader.comments < at_first + 3:
            await reader.read()
        assert trio.current_time() - begun == pytest.approx(45, abs=1)
    assert len(reader.events) == 1


async def test_there_are_no_more_readers_than_may_be(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, AsyncExitStack() as readers:
        for _ in range(WATCHERS_MAX):
            await readers.enter_async_context(reading(stack))
        refused = await stack.get(FEED)
        assert refused.status == 503
        error = error_of(refused)
        assert error["code"] == "too_many_readers"
        assert "at most 32 at a time" in error["message"]
        assert header(refused, "retry-after") == "10"
        await readers.aclose()
        await trio.sleep(HALF_CLOSED_S + 1)  # they might still read
        async with reading(stack) as reader:
            assert reader.status == 200


async def test_head_says_what_it_would_be(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.http.request("HEAD", f"http://gateway{FEED}")
        assert header(answer, "content-type") == "text/event-stream"
        assert answer.status == 200


ADMIN, OWN, OTHER = "tg-admin-0123456789", "tg-own-01234567890", "tg-other-0123456789"
KEYS = AccessConfig(
    allowed_hosts=("gateway",),
    api_keys=(
        ApiKey(name="admin", secret=ADMIN, admin=True),
        ApiKey(name="own", secret=OWN, models=frozenset({"m"}), max_parallel=1),
        ApiKey(name="other", secret=OTHER),
    ),
)


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_sees_its_own_requests_only(autojump_clock: Clock) -> None:
    given = config(model("m"), model("n"), model("h", hidden=True), access=KEYS)
    async with running_stack(given) as stack:
        await stack.post(CHAT, chat("n"), bearing(OTHER))
        await stack.post(CHAT, chat("m"), bearing(OWN))
        stack.engines.scripts = [[60.0, ANSWER]]
        async with trio.open_nursery() as nursery, reading(stack, bearing(ADMIN)) as admin:
            nursery.start_soon(stack.post, CHAT, chat("n"), bearing(OTHER))
            await trio.sleep(2)
            # It is no request of its key's, which may have one at a time.
            async with reading(stack, bearing(OWN)) as reader:
                nursery.start_soon(stack.post, CHAT, chat("m"), bearing(OWN))
                snapshot = (await reader.next("snapshot")).data
                assert not snapshot["admin"]
                assert [row["key"] for row in snapshot["recent"]] == ["own"]
                empty = ("requests", "pools", "engines", "timeline")
                assert [snapshot[name] for name in empty] == [[], [], [], []]
                assert (snapshot["held"], snapshot["captures"]) == ({}, None)
                assert snapshot["models"] == [{"name": "m", "state": "unloaded"}]
                while (row := (await reader.next("request")).data)["stage"] != "waiting":
                    pass
                assert "n" not in row["sentence"].replace("answer", "").split()
                assert "another model" in row["sentence"]
                while (row := (await reader.next("request")).data)["stage"] != "done":
                    pass
            while (row := (await admin.next("request")).data)["key"] != "own" or (
                row["stage"] != "waiting"
            ):
                pass
            assert "the turn of n" in row["sentence"]
        told = {event.name for event in reader.events}
        assert told <= {"snapshot", "request", "model"}
        keys = {event.data["key"] for event in reader.events if event.name == "request"}
        assert keys == {"own"}
        models = [event.data for event in reader.events if event.name == "model"]
        assert {"name": "m", "state": "loaded"} in models
        assert {data["name"] for data in models} == {"m"}


async def test_pages_for_admins_stay_theirs(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"), access=KEYS)) as stack:
        for path in ("/gateway/logs", "/gateway//events", "/gateway/events/", "/gateway/queue"):
            refused = await stack.http.request(
                "GET", f"http://gateway{path}", headers=[*bearing(OWN).items()]
            )
            assert refused.status == 403, path
        models = await stack.http.request(
            "GET", "http://gateway/gateway/models", headers=[*bearing(OWN).items()]
        )
        assert json.loads(models.content) == {"models": [{"name": "m", "state": "unloaded"}]}


async def test_one_key_does_not_take_all_places(autojump_clock: Clock) -> None:
    given = config(model("m"), access=KEYS)
    async with running_stack(given) as stack, AsyncExitStack() as readers:
        for _ in range(OF_A_KEY):
            await readers.enter_async_context(reading(stack, bearing(OTHER)))
        async with reading(stack, bearing(OTHER)) as refused:
            assert refused.status == 503
        async with reading(stack, bearing(ADMIN)) as reader:
            assert reader.status == 200


# -- the numbers ----------------------------------------------------------------------------------


async def test_a_running_answer_is_told_of_twice_a_second_at_most(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await one_request(stack)
        while (await reader.next("request")).data["stage"] != "done":
            pass
        pieces: list[bytes | float] = [EVENT * 10, 0.02] * 500
        stack.engines.scripts = [[*pieces, DONE]]
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, stack, chat(stream=True))
            rows = list[dict[str, Any]]()
            while not rows or rows[-1]["stage"] != "done":
                rows.append((await reader.next("request")).data)
        took_s = trio.current_time() - begun
    told = [row for row in rows if row["stage"] == "answering"]
    assert took_s / 2 < len(told) <= took_s / 0.5 + 2
    tokens = [row["generated_tokens"] for row in told]
    assert tokens == sorted(tokens)
    assert told[-1]["speed"] == pytest.approx(500, rel=0.2)


async def test_a_pin_is_seen_at_once(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await one_request(stack)
        await trio.sleep(20)
        await reader.next("snapshot")
        await stack.post("/gateway/models/m/pin", b"")
        while not (await reader.next("model")).data["pinned"]:
            pass
        engine = (await reader.next("engine")).data
    assert (engine["pinned"], engine["next"]) == (True, "stays loaded")


# -- the end --------------------------------------------------------------------------------------


async def test_readers_are_gone_at_once_when_the_gateway_stops(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await reader.next("snapshot")
        begun = trio.current_time()
        stack.gateway.begin_shutdown()
        while not reader.is_over:
            await reader.read()
        assert trio.current_time() - begun < 0.1
        async with reading(stack) as late:
            assert late.status == 503
