"""What an engine is given back at its start, what not, and where caches are kept till then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.asking import Clock
from tests.support.fake_slots import cache_of, hang, ids_of, refuse, run_inline, words
from tests.support.kv_world import A, B, C, World, running, said
from trio_gateway.engine.clients.facts import EngineFacts, SlotUnanswered
from trio_gateway.engine.kv.slot_files import RESTORE_LIMIT_S
from trio_gateway.engine.kv.store import KvStore, KvStoreUnavailable, open_store


@pytest.fixture
def virtual(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A virtual clock, for which the store works in no time at all."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return autojump_clock


@pytest.fixture(autouse=True)
def _log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def failed(world: World) -> tuple[int, int]:
    """How many restores failed, and how many files are kept now."""
    return world.owner.all_counts().failed_restores, len([*world.store.glob("*.bin")])


# -- which conversations ---------------------------------------------------------------------


async def test_a_larger_context_of_the_model_gets_what_a_smaller_one_saved(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, context=1024)
        assert (await world.start("-c", "8192", context=8192)).holds(A)


async def test_a_conversation_too_large_for_the_context_waits_for_one_that_holds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        assert (await world.start(context=299)).holds("")
        assert said(caplog, "m:299: a saved conversation is not restored: 300 tokens do not fit")
        assert failed(world) == (0, 1)
        assert (await world.start(context=300)).holds(A)


@pytest.mark.parametrize(
    ("part", "start"),
    [
        ("engine build", lambda w: w.start(build="b2")),
        ("cache types", lambda w: w.start("-ctk", "q8_0")),
        ("LoRA arguments", lambda w: w.start("--lora", "a.gguf")),
        ("cache types, rope arguments", lambda w: w.start("-ctv", "q4_0", "--rope-scale", "2")),
    ],
)
async def test_what_another_engine_saved_is_not_restored_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str, start: Callable[[World], object]
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await start(world)  # type: ignore[misc]
        assert engine.holds("")
        assert said(caplog, f"a saved conversation is not restored: different {part}")
        assert failed(world) == (0, 1)
        assert (await world.start()).holds(A)


async def test_a_model_file_that_was_replaced_gets_nothing_of_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        world.replace_model(b"GGUF, of another model")
        assert (await world.start()).holds("")
        assert said(caplog, "not restored: different model file")


async def test_several_slots_are_saved_and_restored_the_most_recently_used_first(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        assert await world.saved(A, B) == 600
        await world.saved(C)
        engine = await world.start(slots=2)
        assert engine.holds(C, B)
        assert engine.kv.restored_tokens == 600


async def test_what_a_waiting_request_continues_is_restored_first(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, B, C)
        assert (await world.start(waiting=[f"{A} next"])).holds(A)
        assert (await world.start(slots=2, waiting=["hi", f"{B} next"])).holds(B, A)


async def test_of_two_waiting_requests_the_one_with_more_to_reuse_goes_first(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        longer = words("longer", 400)
        await world.saved(A, longer, B)
        assert (await world.start(waiting=[f"{A} next", f"{longer} next"])).holds(longer)


async def test_there_may_be_more_slots_than_conversations(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        assert (await world.start(slots=3)).holds(A, "", "")


@pytest.mark.parametrize(("shared", "restored"), [(599, [C]), (600, [C, B])])
async def test_slots_that_share_one_cache_get_no_more_than_it_holds(
    tmp_path: Path, shared: int, restored: list[str]
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, B, C)
        engine = await world.start(slots=2, shared=shared)
        assert engine.holds(*restored, *[""] * (2 - len(restored)))


async def test_slots_with_caches_of_their_own_get_what_such_slots_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        for split in (2, 3):
            assert (await world.start(slots=split, shared=None)).holds(*[""] * split)
        assert said(caplog, "not restored: different slot layout")
        assert (await world.start()).holds(A)  # its file is still there
        await world.saved(B, C, shared=None)
        assert (await world.start(slots=2, shared=None)).holds(C, B)


async def test_nobody_waits_long_for_what_no_waiting_request_continues(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, B, C)
        world.owner.costs("m").restore_speed = 1.0  # bytes/s
        assert (await world.start(slots=3, waiting=["hi"])).holds("", "", "")
        assert (await world.start(slots=1, waiting=[f"{B} next"])).holds(B)


async def test_another_model_s_conversations_are_none_of_this_one_s(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        assert (await world.start(name="other")).holds("")
        assert failed(world) == (0, 1)


# -- restores that fail ----------------------------------------------------------------------


async def test_a_restore_that_the_engine_refuses_drops_the_file_and_the_engine_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        world.faults.before_restore = refuse
        engine = await world.start()
        assert engine.holds("")
        assert engine.kv.restored_tokens == 0
        assert not engine.kv.in_doubt
        assert failed(world) == (1, 0)
        assert said(caplog, "300 saved tokens are dropped: no space left on device")
        engine.slots.take(A)
        assert await engine.save() == 300


async def test_after_a_refused_restore_the_next_one_is_tried(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, B)
        newest = iter([refuse])

        async def refuse_once(path: Path) -> None:
            for fault in newest:
                await fault(path)

        world.faults.before_restore = refuse_once
        engine = await world.start(slots=2)
        assert engine.holds(A, "")
        assert engine.kv.restored_tokens == 300
        assert failed(world) == (1, 1)


async def test_a_slot_that_got_back_less_than_was_saved_is_erased_and_the_file_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        world.faults.tokens_lost = 1
        engine = await world.start(waiting=[A])
        assert engine.holds("")
        assert engine.kv.restored_tokens == 0
        assert failed(world) == (1, 0)
        assert said(caplog, "dropped: the engine restored 299 of 300 tokens")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replace_by_another(path: Path) -> None:
    """As large, and with its time of change: another model's file under the right name."""
    times = path.stat()
    path.write_bytes(cache_of(ids_of(B)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, replace_by_another, Path.unlink])
async def test_a_file_that_is_not_what_was_saved_is_never_shown_to_an_engine(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        damage(world.cache)
        shown = list[Path]()

        async def note(path: Path) -> None:
            shown.append(path)

        world.faults.before_restore = note
        assert (await world.start()).holds("")
        assert (shown, failed(world)) == ([], (1, 0))


async def test_a_restore_that_hangs_ends_after_its_limit(
    virtual: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as world:
        await world.saved(A, B)
        world.faults.before_restore = hang
        begun = trio.current_time()
        engine = await world.start(slots=2)
        assert trio.current_time() - begun == pytest.approx(RESTORE_LIMIT_S)
        assert engine.kv.restored_tokens == 0
        assert said(caplog, f"restoring took over {RESTORE_LIMIT_S:g} s")


@pytest.mark.parametrize(
    ("ended", "why"),
    [(True, "the engine ended while it restored them"), (False, "no answer came in time")],
)
async def test_a_file_whose_restore_got_no_answer_is_dropped_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ended: bool, why: str
) -> None:
    """A later engine would meet the same end."""
    async with running(tmp_path) as world:
        await world.saved(A, B)

        async def lose(path: Path) -> None:
            raise SlotUnanswered("the engine gave no answer")

        world.faults.before_restore = lose
        engine = await world.start(slots=2)
        before = engine.kv.in_doubt
        await (engine.kv.settle_ended() if ended else engine.kv.settle())
        assert (before, engine.kv.in_doubt) == (True, False)
        assert failed(world) == (1, 1)
        assert said(caplog, f"300 saved tokens are dropped: {why}")
        await (engine.kv.settle_ended() if ended else engine.kv.settle())
        assert failed(world) == (1, 1)


# -- where they are kept ---------------------------------------------------------------------


@pytest.mark.parametrize("given", ["slots", "relative"])
async def test_a_folder_of_the_user_s_own_is_used_and_left_as_it_was(
    tmp_path: Path, given: str
) -> None:
    own = tmp_path / "slots"
    own.mkdir()
    (own / "mine.bin").touch()
    args = ("--slot-save-path", str(own) if given == "slots" else "slots")
    async with running(tmp_path) as world:
        assert await world.saved(A, slot_args=args) == 300
        assert [path.name for path in own.iterdir()] == ["mine.bin"]
        engine = await world.start(*args)
        assert engine.args.count("--slot-save-path") == 1
        assert engine.holds(A)
        assert [path.name for path in own.iterdir()] == ["mine.bin"]
        assert world.files == [".bin", ".json"]


async def test_a_restore_from_the_user_s_own_folder_that_hangs_leaves_nothing_there(
    virtual: Clock, tmp_path: Path
) -> None:
    own = tmp_path / "slots"
    own.mkdir()
    async with running(tmp_path) as world:
        await world.saved(A)
        world.faults.before_restore = hang
        await world.start("--slot-save-path", str(own))
        assert [*own.iterdir()] == []


async def test_a_store_that_cannot_be_written_switches_it_off_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    async with running(tmp_path, directory=tmp_path / "file" / "kv") as world:
        assert said(caplog, "KV carry-over is off: ")
        assert world.owner.totals()["active"] is False
        engine = await world.start()
        assert engine.args == ["-m", str(world.gguf)]
        engine.slots.take(A)
        assert await engine.save() == 0
        own = await world.start("--slot-save-path", str(tmp_path), waiting=[A])
        own.slots.take(A)
        assert await own.save() == 0
    warnings = [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert len(warnings) == 1


async def test_a_shutdown_saves_nothing_that_does_not_outlive_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(B)
        world.owner.begin_shutdown()
        assert await world.saved(A) == 0
    assert world.files == []


async def test_with_persist_a_shutdown_saves_for_the_next_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, persist=True) as world:
        world.owner.begin_shutdown()
        assert await world.saved(A) == 300
    async with running(tmp_path, persist=True) as world:
        assert said(caplog, f"1 files are in {world.store}")
        assert (await world.start()).holds(A)


async def test_the_store_stays_open_while_it_does_something_with_its_files(tmp_path: Path) -> None:
    """Else two would move and remove the same files at once."""
    begun, go_on = threading.Event(), threading.Event()

    def take_long(store: KvStore) -> None:
        begun.set()
        assert go_on.wait(60)

    def is_open() -> bool:
        try:
            with open_store(tmp_path / "kv", 1, persist=True):
                return False
        except KvStoreUnavailable:
            return True

    was_open = list[bool]()
    with trio.CancelScope() as gateway:
        async with running(tmp_path) as world, trio.open_nursery() as nursery:
            nursery.start_soon(world.owner.with_store, take_long)
            await trio.to_thread.run_sync(begun.wait)
            gateway.cancel(reason="the gateway is killed")
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                was_open.append(is_open())
                go_on.set()
    assert was_open == [True]


async def test_the_preview_says_what_a_start_would_restore(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        facts = EngineFacts()

        async def preview(*args: str, context: int = 4096) -> str:
            return await world.owner.preview("m", world.variant(*args), facts, context)

        assert await preview() == "nothing is saved for this model"
        await world.saved(A)
        assert await preview() == "300 saved tokens would be restored, by the same engine build"
        assert await preview(context=299) == "none of 1 saved conversations fits this variant"
        assert await preview("-ctk", "q8_0") == "none of 1 saved conversations fits this variant"
