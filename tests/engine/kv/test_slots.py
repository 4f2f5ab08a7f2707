"""A conversation from an engine that is stopped to the next one: what is saved, and what not."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.asking import Clock
from tests.support.fake_slots import WRAPPER, hang, refuse, run_inline, words
from tests.support.kv_world import STOP_S, A, B, running, said
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.prompt import Prompt, token_ids

LONG = words("long", 3000)


@pytest.fixture
def virtual(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A virtual clock, for which the store works in no time at all."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return autojump_clock


@pytest.fixture(autouse=True)
def _log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


# -- there and back --------------------------------------------------------------------------


async def test_a_conversation_is_saved_before_the_stop_and_restored_after_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        assert await world.saved(A) == 300
        assert world.files == [".bin", ".json"]
        assert said(caplog, "m:4096: saved 300 tokens of slot 0, 0.0 MB in 10 ms (its cost")
        engine = await world.start()
        assert engine.holds(A)
        assert engine.kv.restored_tokens == 300
        assert not engine.kv.in_doubt
        assert said(caplog, "m:4096: restored 300 tokens into slot 0 in 5 ms")
        counts = world.owner.all_counts()
        assert (counts.saves, counts.saved_tokens, counts.failed_saves) == (1, 300, 0)
        assert (counts.restores, counts.restored_tokens, counts.failed_restores) == (1, 300, 0)
        assert counts.saved_bytes == counts.restored_bytes == world.cache.stat().st_size


async def test_a_saved_conversation_is_for_the_user_s_eyes_only(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        paths = [world.cache, world.cache.with_suffix(".json"), world.store]
        modes = [stat.S_IMODE(path.stat().st_mode) for path in paths]
    assert modes == [0o600, 0o600, 0o700]


async def test_a_restored_conversation_that_nobody_asked_for_is_still_there_the_time_after(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        idle = await world.start()
        assert await idle.save() == 0
        assert (await world.start()).holds(A)


async def test_what_a_conversation_grew_to_takes_the_place_of_what_it_was(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        await world.saved(f"{A} {B}")
        assert world.files == [".bin", ".json"]
        assert (await world.start()).holds(f"{A} {B}")


async def test_without_a_carry_over_in_the_configuration_nothing_is_done(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        world.owner = KvCarryover(None)
        await world.owner.run()
        engine = await world.start()
        assert engine.args == ["-m", str(world.gguf)]
        assert engine.holds("")
        engine.slots.take(A)
        assert await engine.save() == 0


# -- worth it or not -------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "saved"), [(255, 0), (256, 256)])
async def test_a_conversation_shorter_than_the_least_is_not_saved(
    tmp_path: Path, count: int, saved: int
) -> None:
    async with running(tmp_path) as world:
        assert await world.saved(words("a", count)) == saved
        assert len(world.files) == (2 if saved else 0)


async def test_a_conversation_that_turns_out_to_be_shorter_is_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start()
        engine.slots.take(A)

        async def lose_most(path: Path) -> None:
            del engine.slots.held[0][255:]

        world.faults.before_save = lose_most
        assert await engine.save() == 0
        assert (world.files, world.owner.all_counts().saves) == ([], 0)


@pytest.mark.parametrize(("prompt_speed", "saved"), [(1000.0, 300), (9000.0, 0)])
async def test_a_conversation_is_saved_if_reading_it_again_takes_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prompt_speed: float, saved: int
) -> None:
    async with running(tmp_path) as world:
        # 300 tokens are 3.6 kB: 0.04 s to save, and as much to restore.
        world.measure(prompt_speed=prompt_speed, disk_speed=90_000.0)
        assert await world.saved(A) == saved
        numbers = f"reading again: {300 / prompt_speed:.2f} s, save and restore: 0.08 s"
        assert said(caplog, numbers)
        assert said(caplog, "slot 0 is not worth saving") is (not saved)
        assert world.owner.all_counts().failed_saves == 0


async def test_an_engine_with_a_restore_that_does_not_help_is_not_saved_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(waiting=[f"{A} {B}"])
        engine.kv.note_answer(0, Usage(600, cached_tokens=0))
        why = "only 0 of 300 restored tokens were used"
        assert world.owner.unhelpful["m"].startswith(why)
        engine.slots.take(f"{A} {B}")
        assert await engine.save() == 0
        assert said(caplog, f"slot 0 is not saved: {why}")


@pytest.mark.parametrize("cached", [300, 150, None])
async def test_a_restore_that_helped_or_may_have_helped_is_done_again(
    tmp_path: Path, cached: int | None
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(waiting=[f"{A} {B}"])
        engine.kv.note_answer(0, Usage(600, cached_tokens=cached))
        engine.slots.take(f"{A} {B}")
        assert await engine.save() == 600


async def test_a_restore_is_judged_by_none_that_continues_no_restored_conversation(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(waiting=[B])
        engine.kv.note_answer(0, Usage(300, cached_tokens=0))
        engine.kv.note_answer(7, Usage(300, cached_tokens=0))
        assert world.owner.unhelpful == {}


async def test_a_restore_is_judged_by_the_first_answer_only(tmp_path: Path) -> None:
    """A later one meets what the first one left in the slot."""
    shared = words("system", 400)
    async with running(tmp_path) as world:
        await world.saved(f"{shared} {LONG}")
        engine = await world.start(waiting=[f"{shared} {A}", f"{shared} {LONG} {B}"])
        engine.kv.note_answer(0, Usage(700, cached_tokens=engine.slots.take(f"{shared} {A}")))
        left = engine.slots.take(f"{shared} {LONG} {B}")
        engine.kv.note_answer(1, Usage(3700, cached_tokens=left))
        assert left == 400
        assert world.owner.unhelpful == {}


# -- engines that cannot -------------------------------------------------------------------


async def test_an_engine_is_told_where_to_save_its_slots(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start("-c", "4096")
        assert engine.args[-2:] == ["--slot-save-path", str(world.store / "gateway-kv-slots")]


async def test_an_engine_without_slot_support_is_started_as_configured_and_not_asked(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(binary=WRAPPER)
        assert engine.args == ["-m", str(world.gguf)]
        assert engine.holds("")
        engine.slots.take(A)
        assert await engine.save() == 0
        assert (world.owner.all_counts().restores, world.owner.all_counts().failed_saves) == (0, 0)


async def test_an_engine_that_does_not_show_its_slots_is_not_saved_and_restored_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        world.faults.are_shown = False
        engine = await world.start()
        assert engine.holds(A)
        engine.slots.take(f"{A} {B}")
        assert await engine.save() == 0
        assert said(caplog, "nothing saved: the engine does not show its slots")


async def test_a_model_whose_file_cannot_be_read_is_not_carried_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        world.gguf.unlink()
        assert await world.saved(A) == 0
        assert said(caplog, "no KV carry-over: its model's file cannot be read")


# -- saves that fail -------------------------------------------------------------------------


async def test_a_save_that_the_engine_refuses_is_counted_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        world.faults.before_save = refuse
        assert await world.saved(A) == 0
        assert (world.owner.all_counts().failed_saves, world.files) == (1, [])
        assert said(caplog, "slot 0 could not be saved: no space left on device")


async def test_one_slot_that_cannot_be_saved_does_not_keep_the_next_from_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        tries = iter([refuse])

        async def refuse_once(path: Path) -> None:
            for fault in tries:
                await fault(path)

        world.faults.before_save = refuse_once
        assert await world.saved(A, B) == 300
        assert (await world.start()).holds(B)


async def test_a_file_that_is_shorter_than_the_engine_says_is_never_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        world.faults.after_save = lambda path: os.truncate(path, path.stat().st_size - 1)
        assert await world.saved(A) == 0
        assert (world.owner.all_counts().failed_saves, world.files) == (1, [])
        assert said(caplog, "slot 0 could not be saved: the engine reported 300 tokens in")
        assert (await world.start()).holds("")


async def test_a_file_that_the_engine_did_not_write_is_never_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.faults.after_save = Path.unlink
        assert await world.saved(A) == 0
        assert (world.owner.all_counts().failed_saves, world.files) == (1, [])


@pytest.mark.parametrize(("closing", "limit_s"), [(False, STOP_S), (True, STOP_S / 2)])
async def test_a_save_that_hangs_ends_after_its_limit(
    virtual: Clock, caplog: pytest.LogCaptureFixture, tmp_path: Path, closing: bool, limit_s: float
) -> None:
    async with running(tmp_path, persist=True) as world:
        world.owner.is_closing = closing
        world.faults.before_save = hang
        begun = trio.current_time()
        assert await world.saved(A, B) == 0
        assert trio.current_time() - begun == pytest.approx(limit_s)
        assert world.files == []
        assert said(caplog, f"saving took over {limit_s:g} s, gave up")


async def test_a_save_may_take_as_long_as_a_slow_disk_needs(virtual: Clock, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        # The whole context, 4,096 tokens: 20 s to save and 20 to restore, and four times that.
        world.measure(prompt_speed=10.0, disk_speed=4096 * 12 / 20)

        async def be_slow(path: Path) -> None:
            await trio.sleep(150.0)

        world.faults.before_save = be_slow
        assert await world.saved(A) == 300


async def test_a_save_that_hangs_is_counted_as_failed(virtual: Clock, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.faults.before_save = hang
        await world.saved(A)
        assert world.owner.all_counts().failed_saves == 1


async def test_a_save_that_is_cancelled_leaves_no_temporary_file(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        writing = trio.Event()

        async def write_half(path: Path) -> None:
            path.touch()  # noqa: ASYNC240 - a small file
            writing.set()
            await trio.sleep_forever()

        world.faults.before_save = write_half
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.saved, A)
            await writing.wait()
            assert world.files == [".tmp"]
            nursery.cancel_scope.cancel(reason="the gateway is killed")
        assert world.files == []


# -- who judges a restore ---------------------------------------------------------------------


async def test_a_prompt_that_only_begins_like_what_was_restored_is_no_judge(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        long = f"{A} {words('rest', 700)}"
        await world.saved(long)
        engine = await world.start(slots=2, waiting=[f"{A} another", f"{long} next"])
        engine.kv.note_answer(0, Usage(prompt_tokens=301, cached_tokens=0))
        assert world.owner.unhelpful == {}


async def test_a_request_that_wants_no_cache_is_no_judge(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(slots=1)
        body = b'{"cache_prompt": false, "prompt": "x"}'
        assert await token_ids(engine.client, Prompt("completions", body)) is None


async def test_a_folder_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        shutil.rmtree(world.store)
        engine = await world.start(waiting=[A])
        assert world.store.is_dir()
        assert engine.holds("")
        engine.slots.take(B)
        assert await engine.save() == 300
