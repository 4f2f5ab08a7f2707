"""What may go wrong while KV caches are carried over: no request and no stop pays for it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpcore
import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, Clock, chat, error_of
from tests.support.carrying import (
    END_S,
    GRACE_S,
    LAST_S,
    LOAD_S,
    NEXT,
    STOP_S,
    A,
    B,
    Files,
    ask,
    carryover,
    kv_of,
    pauses,
    shut_down_within,
)
from tests.support.fake_slots import (
    SlotClient,
    SlotStack,
    hang,
    refuse,
    run_inline,
    slot_stack,
    words,
)
from tests.support.fakes import FakeProcess
from trio_gateway.engine.clients.facts import SlotUnanswered
from trio_gateway.engine.kv.slot_files import RESTORE_LIMIT_S
from trio_gateway.engine.process.process import StopReport


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    caplog.set_level("INFO")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- engines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [refuse, hang], ids=["refused", "hanging"])
async def test_a_save_that_fails_does_not_keep_the_swap_from_happening(
    autojump_clock: Clock, files: Files, fault: Callable[[Path], Awaitable[None]]
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        stack.engines.faults.before_save = fault
        begun = trio.current_time()
        assert kv_of(await ask(stack, "b", B)) is None
        save_s = STOP_S if fault is hang else 0.0
        assert trio.current_time() - begun == pytest.approx(save_s + END_S + LOAD_S, abs=0.1)
        assert not stack.engines.processes[0].killed
        assert files.kept == []


async def test_an_engine_that_ends_in_a_save_does_not_keep_the_swap_from_happening(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)

        async def end(path: Path) -> None:
            stack.engines.processes[0].exit("was killed by signal 6")
            raise SlotUnanswered("the engine gave no answer")

        stack.engines.faults.before_save = end
        assert kv_of(await ask(stack, "b", B)) is None
        assert files.kept == []
        assert pauses(stack) == {}


def ends_in_a_restore(stack: SlotStack, nursery: trio.Nursery, news: str, number: int = 1) -> None:
    """From now on the engine ends in its restore of that number, in this order of events."""
    restores = iter(range(1, 100))

    async def exit_later() -> None:
        await trio.sleep(0.05)
        stack.engines.processes[-1].exit("was killed by signal 6")

    async def end(path: Path) -> None:
        if next(restores) != number:
            return
        if news == "its exit is seen first":
            stack.engines.processes[-1].exit("was killed by signal 6")
            await trio.sleep_forever()
        if news == "its connection breaks first":
            nursery.start_soon(exit_later)
        else:
            stack.engines.processes[-1].exit("was killed by signal 6")
        raise SlotUnanswered("the engine gave no answer")

    stack.engines.faults.before_restore = end


ORDERS = ["its exit is seen first", "its connection breaks first", "both in the same moment"]


@pytest.mark.parametrize("news", ORDERS)
async def test_an_engine_that_a_restore_ends_is_started_again_without_it(
    autojump_clock: Clock, files: Files, caplog: pytest.LogCaptureFixture, news: str
) -> None:
    async with slot_stack(files.two_models()) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        await ask(stack, "b", words("b", 10))
        ends_in_a_restore(stack, nursery, news)
        begun = trio.current_time()
        response = await ask(stack, "a", f"{A} {NEXT}")
        assert kv_of(response) is None
        assert trio.current_time() - begun == pytest.approx(END_S + 2 * LOAD_S, abs=0.3)
        assert len(stack.engines.processes) == 4
        # Neither a failed start nor an engine that ended by itself: nothing is held against it.
        assert pauses(stack) == {}
        assert not any(record.levelname == "ERROR" for record in caplog.records)
        page = await carryover(stack)
        assert (page["failed_restores"], page["restores"], page["files"]) == (1, 0, 0)
        # The next start has nothing to end on.
        await ask(stack, "b", B)
        assert (await ask(stack, "a", NEXT)).status == 200
        assert len(stack.engines.processes) == 6


@pytest.mark.parametrize("news", ORDERS)
async def test_of_several_files_only_the_one_that_ended_the_engine_is_dropped(
    autojump_clock: Clock, files: Files, news: str
) -> None:
    async with slot_stack(files.two_models(), slots=2) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        await ask(stack, "a", B)
        await ask(stack, "b", words("b", 10))
        ends_in_a_restore(stack, nursery, news)
        assert (await ask(stack, "a", NEXT)).status == 200
        page = await carryover(stack)
        assert (page["failed_restores"], page["files"]) == (1, 1)
        assert page["restores"] == 0  # the second start goes without


async def test_what_was_restored_into_an_engine_that_ended_is_not_said_of_the_next(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models(), slots=2) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        await ask(stack, "a", B)
        await ask(stack, "b", words("b", 10))
        ends_in_a_restore(stack, nursery, ORDERS[0], number=2)
        timings = {"cache_n": 0, "prompt_n": 320, "prompt_ms": 100.0}
        stack.engines.scripts = [[json.dumps({"timings": timings}).encode()]]
        response = await ask(stack, "a", f"{A} {NEXT}")
        assert kv_of(response) is None
        assert (await carryover(stack))["not_helpful_for"] == {}


async def test_an_engine_that_hangs_in_a_restore_serves_all_the_same(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", words("b", 10))
        stack.engines.faults.before_restore = hang
        begun = trio.current_time()
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) is None
        took_s = trio.current_time() - begun
        assert took_s == pytest.approx(END_S + LOAD_S + RESTORE_LIMIT_S, abs=0.5)
        assert len(stack.engines.processes) == 3
        page = await carryover(stack)
        assert (page["failed_restores"], page["files"]) == (1, 0)


async def test_an_engine_that_ends_before_anything_was_restored_costs_no_file(
    autojump_clock: Clock, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", words("b", 10))

        async def end(client: SlotClient, *_: object) -> list[int] | None:
            if client.process is stack.engines.processes[2]:
                client.process.exit("was killed by signal 6")
                await trio.sleep_forever()
            return None

        monkeypatch.setattr(SlotClient, "tokenize_request", end)
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) is None
        assert len(stack.engines.processes) == 4  # one more, in the same start
        page = await carryover(stack)
        assert (page["failed_restores"], page["files"]) == (0, 1)


async def test_turns_of_conversations_that_do_not_help_are_given_up(
    autojump_clock: Clock, files: Files
) -> None:
    """As after a start: an engine may restore nothing without a word."""
    async with slot_stack(files.config(files.model("a", kv_conversations=2))) as stack:
        await ask(stack, "a", A)
        await ask(stack, "a", B)
        timings = {"cache_n": 0, "prompt_n": 320, "prompt_ms": 100.0}
        stack.engines.scripts = [[json.dumps({"timings": timings}).encode()]]
        turned = await ask(stack, "a", f"{A} {NEXT}")
        assert kv_of(turned) == "restored=300 saved=300 spared=0"
        assert [*(await carryover(stack))["not_helpful_for"]] == ["a"]


# -- shutdowns -------------------------------------------------------------------------------


async def test_a_stop_does_not_wait_for_a_restore(autojump_clock: Clock, files: Files) -> None:
    async with slot_stack(files.two_models(persist=True)) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", words("b", 10))
        restoring = trio.Event()

        async def begin(path: Path) -> None:
            restoring.set()
            await trio.sleep_forever()

        stack.engines.faults.before_restore = begin
        answers = list[httpcore.Response]()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask_a() -> None:
                answers.append(await ask(stack, "a", f"{A} {NEXT}"))

            await restoring.wait()
            assert await shut_down_within(stack, STOP_S) == pytest.approx(END_S)
        assert [error_of(answer)["code"] for answer in answers] == ["shutting_down"]
        assert files.kept == [".bin", ".json"]  # nothing is known against it


async def test_a_gateway_that_is_killed_in_a_save_leaves_no_half_file(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models(persist=True)) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        saving = trio.Event()

        async def write_half(path: Path) -> None:
            path.touch()  # noqa: ASYNC240 - a small file
            saving.set()
            await trio.sleep_forever()

        stack.engines.faults.before_save = write_half
        nursery.start_soon(ask, stack, "b", B)
        await saving.wait()
        assert files.kept == [".tmp"]
        stack.gateway.end_now("a second signal")
        await trio.testing.wait_all_tasks_blocked()
        assert files.kept == []
        assert stack.engines.alive == []


@pytest.mark.parametrize("streams", [0, 1])
async def test_a_shutdown_stays_within_its_bound_although_an_engine_hangs_in_its_save(
    autojump_clock: Clock, files: Files, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    async def ignore_sigterm(process: FakeProcess, timeout_s: float) -> StopReport:
        await trio.sleep(timeout_s)
        return await process.kill()

    monkeypatch.setattr(FakeProcess, "stop", ignore_sigterm)
    async with slot_stack(files.two_models(persist=True)) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        stack.engines.faults.before_save = hang
        stack.engines.scripts = [[b"data: {}\n\n", 1e6]] * streams
        for _ in range(streams):
            body = chat("a", stream=True, messages=[{"role": "user", "content": A}])
            nursery.start_soon(stack.post, CHAT, body)
        await trio.testing.wait_all_tasks_blocked()
        bound_s = GRACE_S * streams + STOP_S
        took_s = await shut_down_within(stack, bound_s + LAST_S)
        assert took_s == pytest.approx(bound_s)  # saving and stopping have half of STOP_S each


async def test_a_shutdown_stays_within_its_bound_also_if_a_slow_save_is_under_way(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        # 12 bytes a token: 8 s for the whole context, so a save before a swap may take a minute.
        stack.manager.kv.costs("a").note_save(1000, 12_000, took_ms=1000.0)
        saving = trio.Event()

        async def begin(path: Path) -> None:
            saving.set()
            await trio.sleep_forever()

        stack.engines.faults.before_save = begin
        nursery.start_soon(ask, stack, "b", B)
        await saving.wait()
        await shut_down_within(stack, GRACE_S + STOP_S + LAST_S)


async def test_a_shutdown_stays_within_its_bound_also_if_conversations_take_turns(
    autojump_clock: Clock, files: Files
) -> None:
    given = files.config(files.model("a", kv_conversations=2))
    async with slot_stack(given) as stack, trio.open_nursery() as nursery:
        await ask(stack, "a", A)
        await ask(stack, "a", B)
        restoring = trio.Event()

        async def begin(path: Path) -> None:
            restoring.set()
            await trio.sleep_forever()

        stack.engines.faults.before_restore = begin
        nursery.start_soon(ask, stack, "a", f"{A} {NEXT}")
        await restoring.wait()
        await shut_down_within(stack, GRACE_S + STOP_S + LAST_S)
