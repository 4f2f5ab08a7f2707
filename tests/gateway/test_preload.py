"""What is loaded at the start, before anybody has asked for it."""

from __future__ import annotations

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack

A, B = model("a"), model("b")
GROWING = model("g", variant(4096), variant(8192), aliases=("grow",))
TWO = {"primary": 2}


def running(stack: Stack) -> list[str]:
    return [f"{row.model}:{row.variant} {row.state}" for row in stack.manager.overview.engines()]


async def test_they_are_loaded_in_order_with_the_contexts_that_are_asked_for(
    autojump_clock: Clock,
) -> None:
    given = config(A, GROWING, pools=TWO, preload=("grow@8192", "a"))
    async with running_stack(given) as stack:
        await trio.sleep(0.5)
        assert running(stack) == ["g:8192 starting"]
        await trio.sleep(1)
        assert running(stack) == ["g:8192 ready", "a:4096 starting"]
        assert (await stack.post(CHAT, chat("g"))).status == 200
        await trio.sleep(1)
        assert running(stack) == ["g:8192 ready", "a:4096 ready"]


async def test_a_model_can_say_so_itself(autojump_clock: Clock) -> None:
    async with running_stack(config(A, model("b", preload=True))) as stack:
        await trio.sleep(2)
        assert running(stack) == ["b:4096 ready"]


@pytest.mark.parametrize(
    ("preload", "said"),
    [
        (("a", "b"), "b is not preloaded: a:4096 would have to leave"),
        (("a", "b:huge"), "b:huge is not preloaded: "),
        (("a", "b@99999"), "b@99999 is not preloaded: "),
    ],
)
async def test_what_cannot_be_is_said_and_the_first_stays(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, preload: tuple[str, ...], said: str
) -> None:
    async with running_stack(config(A, B, preload=preload)) as stack:
        await trio.sleep(5)
        assert running(stack) == ["a:4096 ready"]
        assert said in caplog.text


async def test_who_asks_meanwhile_goes_first(autojump_clock: Clock) -> None:
    async with running_stack(config(A, B, preload=("a",))) as stack:
        stack.engines.load_s = 30.0
        await trio.sleep(1)
        with trio.fail_after(70):
            assert (await stack.post(CHAT, chat("b"))).status == 200
        assert "b:4096 ready" in running(stack)
