"""Requests that were taken for too large, and are counted again once an engine can tell."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpcore
import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, Clock, chat, error_of, header
from tests.support.llama import answered
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.engine.clients.facts import EngineFacts

TEXT = "a" * 2000  # 15 tokens at least and 2,200 at most, as far as its size tells
ANSWER_S = 10.0


def two_contexts(**fields: Any) -> Any:
    return config(model("m", variant(1024), variant(4096), **fields))


async def say(stack: Stack, text: str, answers: list[httpcore.Response], **fields: Any) -> None:
    messages = [{"role": "user", "content": text}]
    answers.append(await stack.post(CHAT, chat("m", messages=messages, **fields)))


def nothing_waits(stack: Stack) -> bool:
    leases = [row.leases for row in stack.manager.overview.engines()]
    return not stack.manager.overview.tickets() and not any(leases)


# -- an engine that starts -------------------------------------------------------------------


async def test_a_chat_that_seems_large_waits_for_the_engine_that_starts_and_is_counted_there(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted = 63
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            nursery.start_soon(say, stack, TEXT, answers)
        assert [answer.status for answer in answers] == [200, 200]
        assert {header(answer, "X-Gateway-Variant") for answer in answers} == {"1024"}
        assert str(63 + 8 + 16) in {header(answer, "X-Gateway-Need") for answer in answers}
        assert len(stack.engines.processes) == 1
        assert nothing_waits(stack)


async def test_one_that_is_large_gets_a_larger_engine_after_the_count(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted = 1500
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            nursery.start_soon(say, stack, TEXT, answers)
        assert [header(answer, "X-Gateway-Variant") for answer in answers] == ["1024", "4096"]


async def test_a_client_that_leaves_while_it_is_counted_leaves_nothing_behind(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted, stack.engines.count_s = 63, 5.0
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            with trio.move_on_after(2) as patience:
                await say(stack, TEXT, answers)
            assert patience.cancelled_caught
            assert stack.engines.count_requests
        await trio.testing.wait_all_tasks_blocked()
        assert nothing_waits(stack)
        stack.engines.count_s = 0
        await say(stack, "Hi", answers)
        assert [answer.status for answer in answers] == [200, 200]


async def test_a_count_that_hangs_is_not_waited_for_for_ever(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted, stack.engines.count_s = 63, 1e6
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            nursery.start_soon(say, stack, TEXT, answers)
        assert [header(answer, "X-Gateway-Variant") for answer in answers] == ["1024", "4096"]
        assert nothing_waits(stack)


async def test_what_is_too_long_by_the_count_is_refused_while_it_waits(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_contexts(clamp_answer=False)) as stack:
        stack.engines.counted = 63
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            stack.engines.counted = 4090
            nursery.start_soon(say, stack, TEXT * 2, answers)
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200, 400]
        refused = next(answer for answer in answers if answer.status == 400)
        assert "needs 4114 tokens" in error_of(refused)["message"]
        assert nothing_waits(stack)


async def test_a_dry_run_says_that_the_engine_that_starts_counts_first(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_contexts()) as stack:
        answers: list[httpcore.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, stack, "Hi", answers)
            await trio.sleep(0.05)
            messages = [{"role": "user", "content": TEXT}]
            response = await stack.post("/gateway/explain", chat("m", messages=messages))
            found = json.loads(response.content)
            assert (found["variant"], found["engine_state"]) == ("1024", "starting")
            assert found["reason"].startswith("the engine that starts is to count it first")


# -- cold and warm ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
async def test_an_answer_is_lowered_to_the_same_whether_an_engine_runs_or_not(
    autojump_clock: Clock, is_warm: bool
) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted = 40
        answers: list[httpcore.Response] = []
        if is_warm:
            await say(stack, "Hi", answers)
        await say(stack, TEXT, answers, max_tokens=32_000)
        assert answers[-1].status == 200
        assert json.loads(stack.engines.requests[-1][2])["max_tokens"] == 4096 - 40 - 16


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
async def test_an_answer_that_fits_after_all_is_not_lowered(
    autojump_clock: Clock, is_warm: bool
) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted = 40
        answers: list[httpcore.Response] = []
        if is_warm:
            await say(stack, "Hi", answers)
        await say(stack, TEXT, answers, max_tokens=4000)
        assert json.loads(stack.engines.requests[-1][2])["max_tokens"] == 4000


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("counted", "status"), [(40, 200), (2000, 400)])
async def test_where_answers_are_not_lowered_the_count_decides(
    autojump_clock: Clock, counted: int, status: int, is_warm: bool
) -> None:
    async with running_stack(two_contexts(clamp_answer=False)) as stack:
        stack.engines.counted = counted
        answers: list[httpcore.Response] = []
        if is_warm:
            await say(stack, "Hi", answers)
        await say(stack, TEXT, answers, max_tokens=3000)
        assert answers[-1].status == status
        if status == 400:
            assert "needs 5016 tokens" in error_of(answers[-1])["message"]
        assert nothing_waits(stack)


# -- tokens that slots share -----------------------------------------------------------------


def shared() -> Any:
    return config(model("m", variant(4096)))


async def together(stack: Stack, number: int, text: str, **fields: Any) -> float:
    """How long so many chats take that come at once, each of which takes ANSWER_S."""
    stack.engines.scripts = [[ANSWER_S, answered(1)] for _ in range(number)]
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(partial(say, stack, text, [], **fields))
    return trio.current_time() - before


def sharing(stack: Stack, counted: int | None) -> None:
    stack.engines.facts = EngineFacts(slots=4, context=4096)
    stack.engines.shared_tokens, stack.engines.counted = 4096, counted


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
async def test_chats_that_fit_together_run_together(autojump_clock: Clock, is_warm: bool) -> None:
    """Each is 2,474 tokens at most, by its size."""
    async with running_stack(shared()) as stack:
        sharing(stack, 500)
        if is_warm:
            await say(stack, "Hi", [])
        assert await together(stack, 4, TEXT, max_tokens=200) < 1.5 * ANSWER_S


async def test_what_does_not_fit_together_waits(autojump_clock: Clock) -> None:
    async with running_stack(shared()) as stack:
        sharing(stack, 2100)
        assert await together(stack, 2, TEXT, max_tokens=8) >= 2 * ANSWER_S


async def test_nothing_is_counted_for_one_that_is_alone(autojump_clock: Clock) -> None:
    async with running_stack(shared()) as stack:
        sharing(stack, 500)
        await say(stack, TEXT, [], max_tokens=200)
        await say(stack, TEXT, [], max_tokens=200)
        assert stack.engines.count_requests == []


# -- contexts that are smaller than declared -------------------------------------------------


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_first_is_refused_in_the_words_of_those_that_come_later(
    autojump_clock: Clock, field: str
) -> None:
    async with running_stack(config(model("m", variant(4096), clamp_answer=False))) as stack:
        stack.engines.facts, stack.engines.counted = EngineFacts(slots=1, context=2048), 1500
        body = {"messages": [{"role": "user", "content": TEXT}], field: 900}
        request = json.dumps({"model": "m", **body}).encode()
        first, later = [await stack.post(CHAT, request) for _ in range(2)]
        assert first.status == later.status == 400
        assert error_of(first) == error_of(later)
        assert error_of(first)["param"] is not None
        assert "this model's maximum context length is 2048 tokens" in error_of(first)["message"]


async def test_the_first_has_its_answer_lowered_like_those_that_come_later(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(4096)))) as stack:
        stack.engines.facts, stack.engines.counted = EngineFacts(slots=1, context=2048), 1000
        for _ in range(2):
            answers: list[httpcore.Response] = []
            await say(stack, TEXT, answers, max_tokens=1800)
            assert answers[0].status == 200
            sent = json.loads(stack.engines.requests[-1][2])
            assert sent["max_tokens"] == 2048 - 1000 - 16


@pytest.mark.parametrize(
    ("name", "status"), [("m:4096", 200), ("m@2048", 200), ("m@3000", 400)], ids=str
)
async def test_a_context_that_is_asked_for_by_name_is_looked_for_anew(
    autojump_clock: Clock, name: str, status: int
) -> None:
    """For a request that is not counted as well."""
    given = model("m", variant(4096), endpoints=frozenset({"chat/completions", "tokenize"}))
    for path in (CHAT, "/tokenize"):
        async with running_stack(config(given)) as stack:
            stack.engines.facts = EngineFacts(slots=1, context=2048)
            answers = [await stack.post(path, chat(name, content="Hi")) for _ in range(2)]
            assert [answer.status for answer in answers] == [status, status]
            if status == 400:
                assert error_of(answers[0]) == error_of(answers[1])
                assert error_of(answers[0])["code"] == "context_not_found"


async def test_one_that_fits_by_its_count_is_served_though_its_bound_does_not(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(4096)))) as stack:
        stack.engines.facts, stack.engines.counted = EngineFacts(slots=1, context=2048), 40
        answers: list[httpcore.Response] = []
        await say(stack, TEXT, answers, max_tokens=900)
        assert answers[0].status == 200
        assert json.loads(stack.engines.requests[-1][2])["max_tokens"] == 900
