"""Engines that are there and do not serve: noticed, killed, and said so. On a virtual clock."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineTalksGarbage,
    EngineUnreachable,
    OutOfSockets,
)

HANGS = Health(False, "no answer", silent=True)
CHECK_S = 5.0
HUNG = "the engine did not answer 3 health checks in a row (15 s)"
LAST_LINE = "the fake engine's last line"
FOR_EVER = 100_000.0
REFUSED = "nothing answers"


@asynccontextmanager
async def ready_engine(**fields: Any) -> AsyncIterator[Stack]:
    """A gateway with a model `m`, ready and idle, and a model `other`; checked every 5 s."""
    m = model("m", variant(timeouts=EngineTimeouts(health_check_s=CHECK_S, idle_s=FOR_EVER)))
    async with running_stack(config(m, model("other"), **fields)) as stack:
        assert (await stack.post(CHAT, chat())).status == 200
        yield stack


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error of an engine."""
    name = "trio_gateway.engine.engine"
    logged = [r for r in caplog.records if r.levelname == "ERROR" and r.name == name]
    return [r.getMessage() for r in logged]


def last_error(answer: bytes) -> str:
    """The message of the error event that a stream ended with."""
    *_, last = answer.strip().split(b"\n\n")
    message: str = json.loads(last.removeprefix(b"data: "))["error"]["message"]
    return message


# -- health checks ---------------------------------------------------------------------------


async def test_a_ready_engine_is_checked_at_its_interval_until_it_ends(
    autojump_clock: Clock,
) -> None:
    async with ready_engine() as stack:
        stack.engines.health_checks.clear()
        await trio.sleep(60 + 1)
        checks = stack.engines.health_checks
        assert len(checks) == 12
        assert {round(b - a, 6) for a, b in itertools.pairwise(checks)} == {CHECK_S}
        stack.engines.alive[0].exit()
        await trio.sleep(60)
        assert len(checks) == 12


async def test_an_engine_that_misses_three_checks_is_killed_and_its_requests_are_told(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready_engine() as stack:
        stack.engines.scripts = [[EVENT, FOR_EVER]]

        async def hang() -> None:
            await trio.sleep(30)
            stack.engines.sick = HANGS

        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            answer = await stream(stack, chat(stream=True))
        # Three checks of 5 s each; the first begins up to 5 s after the engine fell silent.
        assert 30 + 15 <= trio.current_time() - begun <= 30 + 20
        assert HUNG in last_error(answer)
        assert json.loads(answer.rpartition(b"data: ")[2])["error"]["engine_output"] == [LAST_LINE]
        assert b"[DONE]" not in answer
        hung = stack.engines.processes[0]
        assert hung.killed
        assert hung.stopped_at is None  # asked to end, a stopped process would be woken up
        assert len([e for e in errors(caplog) if HUNG in e]) == 1
        stack.engines.sick = None
        assert (await stack.post(CHAT, chat())).status == 200
        assert len(stack.engines.processes) == 2


async def test_an_idle_engine_that_hangs_is_replaced_before_a_request_meets_it(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready_engine() as stack:
        stack.engines.sick = HANGS
        # The answer that it just gave still speaks for it at the first check.
        await trio.sleep(CHECK_S + 4 * CHECK_S + 1)
        assert not stack.engines.alive
        assert stack.manager.overview.engine_of("m") is None
        assert any(HUNG in e for e in errors(caplog))
        stack.engines.sick = None
        assert (await stack.post(CHAT, chat())).status == 200


async def test_a_check_that_is_answered_in_time_forgives_two_that_were_not(
    autojump_clock: Clock,
) -> None:
    async with ready_engine() as stack:
        for _ in range(10):
            stack.engines.sick = HANGS
            await trio.sleep(2 * CHECK_S)
            stack.engines.sick = None
            await trio.sleep(2 * CHECK_S)
        assert len(stack.engines.processes) == len(stack.engines.alive) == 1


async def test_bytes_of_an_answer_are_a_sign_of_life(autojump_clock: Clock) -> None:
    """A busy engine may have no thread left for its health endpoint."""
    async with ready_engine() as stack:
        stack.engines.sick = HANGS
        busy: list[bytes | float] = [EVENT, 4.0] * 100
        stack.engines.scripts = [[*busy, DONE]]
        assert (await stream(stack, chat(stream=True))).endswith(DONE)
        begun = trio.current_time()
        assert len(stack.engines.alive) == 1
        await stack.engines.processes[0].exited.wait()  # and then it is silent
        assert trio.current_time() - begun <= 20 + CHECK_S


@pytest.mark.parametrize(
    "answer",
    [Health(False, "HTTP 503"), Health(False, "the gateway cannot open a socket")],
    ids=["an answer that is not 200", "the gateway itself cannot ask"],
)
async def test_what_is_not_silence_is_not_a_miss(autojump_clock: Clock, answer: Health) -> None:
    async with ready_engine() as stack:
        stack.engines.sick = answer
        await trio.sleep(600)
        assert len(stack.engines.alive) == 1


async def test_a_check_under_way_delays_neither_a_stop_nor_the_news_of_a_crash(
    autojump_clock: Clock,
) -> None:
    async with ready_engine() as stack:
        stack.engines.sick = HANGS
        await trio.sleep(CHECK_S + 1)  # the first of the checks hangs now
        stack.engines.sick = None
        begun = trio.current_time()
        assert (await stack.post(CHAT, chat("other"))).status == 200
        assert trio.current_time() - begun == pytest.approx(0.5 + 1.0, abs=0.1)  # stop and load

        stack.engines.sick = HANGS
        await trio.sleep(CHECK_S + 1)
        stack.engines.processes[1].exit()
        await trio.testing.wait_all_tasks_blocked()
        assert stack.manager.overview.engine_of("other") is None


# -- engines that drain ----------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["hangs", "crashes"])
async def test_a_swap_goes_on_when_the_engine_that_drains_for_it_is_lost(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, fate: str
) -> None:
    async with ready_engine() as stack:
        stack.engines.scripts = [[EVENT, FOR_EVER]]
        answers = dict[str, bytes]()

        async def ask_m() -> None:
            answers["m"] = await stream(stack, chat(stream=True))

        async def lose_it() -> None:
            await trio.sleep(30)
            if fate == "crashes":
                stack.engines.alive[0].exit("was killed by signal 11")
                return
            stack.engines.sick = HANGS
            await stack.engines.processes[0].exited.wait()
            stack.engines.sick = None

        words = HUNG if fate == "hangs" else "the engine was killed by signal 11"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_m)
            await trio.sleep(1)
            nursery.start_soon(lose_it)
            assert (await stack.post(CHAT, chat("other"))).status == 200
        assert words in last_error(answers["m"])
        assert any(words in e for e in errors(caplog))


# -- engines that refuse requests ------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        EngineUnreachable(REFUSED),
        EngineDisconnected("the engine closed the connection"),
        EngineTalksGarbage("the engine's answer is not HTTP"),
    ],
    ids=lambda e: type(e).__name__,
)
async def test_an_engine_that_refuses_two_requests_in_a_row_is_replaced(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, refusal: Exception
) -> None:
    async with ready_engine() as stack:
        stack.engines.refusals = [refusal] * 3
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert str(refusal) in error_of(response)["message"]
        assert len(stack.engines.alive) == 1  # both tries were one request's, which may be to blame
        assert (await stack.post(CHAT, chat())).status == 200  # by the second try, on a fresh one
        assert stack.engines.processes[0].killed
        assert len(stack.engines.processes) == 2
        words = f"the engine refuses requests ({refusal})"
        assert len([e for e in errors(caplog) if words in e and LAST_LINE in e]) == 1


async def test_an_answer_between_two_refusals_forgives_the_first(autojump_clock: Clock) -> None:
    async with ready_engine() as stack:
        for _ in range(5):
            stack.engines.refusals = [EngineUnreachable(REFUSED)]
            assert (await stack.post(CHAT, chat())).status == 200  # by the retry
        assert len(stack.engines.processes) == len(stack.engines.alive) == 1


async def test_a_crash_is_called_a_crash_though_its_requests_were_lost_first(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready_engine() as stack:
        engine = stack.manager.overview.engine_of("m")
        assert engine is not None
        for body in (b"one request", b"another one"):
            engine.client._note_refusal(EngineDisconnected("the connection broke"), body)
        await trio.sleep(0.1)
        stack.engines.processes[0].exit("was killed by signal 11")
        await engine.gone.wait()
        assert "the engine was killed by signal 11" in engine.epitaph
        assert not any("refuses" in e for e in errors(caplog))


async def test_a_gateway_without_sockets_does_not_blame_the_engine(autojump_clock: Clock) -> None:
    async with ready_engine() as stack:
        stack.engines.refusals = [OutOfSockets("the gateway cannot open a socket")] * 2
        begun = trio.current_time()
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert "the gateway cannot open a socket" in error_of(response)["message"]
        assert trio.current_time() == begun
        assert (await stack.post(CHAT, chat())).status == 200
        assert len(stack.engines.processes) == len(stack.engines.alive) == 1


# -- its address -----------------------------------------------------------------------------


@pytest.mark.parametrize(("held_s", "status"), [(0.5, 200), (5.0, 502)])
async def test_a_fixed_port_may_be_held_for_an_instant_after_its_last_user_was_killed(
    autojump_clock: Clock, held_s: float, status: int
) -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    fixed = variant(args=("--port", str(port)), connect=f"http://127.0.0.1:{port}")
    async with running_stack(config(model("m", fixed))) as stack, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def let_go() -> None:
            await trio.sleep(held_s)
            holder.close()

        response = await stack.post(CHAT, chat())
        assert response.status == status
        if status != 200:
            assert f"port {port} is held by pid {os.getpid()}" in error_of(response)["message"]
