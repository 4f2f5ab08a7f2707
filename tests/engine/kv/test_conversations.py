"""`kv_conversations`: several conversations take turns on the one slot of an engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.support.asking import Clock
from tests.support.fake_slots import hang, refuse, run_inline, words
from tests.support.kv_world import STOP_S, A, B, C, World, prompt, running
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.kv.slot_files import RESTORE_LIMIT_S

SHORT = words("short", 100)
NOTHING = (0, 0)


@pytest.fixture
def virtual(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A virtual clock, for which the store works in no time at all."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return autojump_clock


def kept(world: World) -> int:
    return len([*world.store.glob("*.bin")])


# -- turns -----------------------------------------------------------------------------------


async def test_the_first_conversation_finds_an_empty_slot(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        assert await engine.ask(A) == NOTHING


async def test_the_conversation_that_leaves_is_saved_and_the_one_that_comes_back_restored(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)
        assert await engine.ask(B) == (0, 300)
        comes_back = prompt(f"{A} next")
        assert await engine.kv.switch(engine.client, comes_back, 1) == (300, 300)
        assert engine.holds(A)
        counts = world.owner.all_counts()
        assert (counts.saved_tokens, counts.restored_tokens) == (600, 300)


async def test_a_conversation_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        for text in (A, f"{A} {B}", f"{A} {B}", f"{A} {B} {C}", f"{A} {B} other"):
            assert await engine.ask(text) == NOTHING
        assert kept(world) == 0


async def test_what_was_restored_at_the_start_goes_on_as_well(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)
        engine = await world.start(kv_conversations=2)
        assert await engine.ask(f"{A} next") == NOTHING
        assert await engine.ask(B) == (0, 301)


async def test_a_conversation_shorter_than_the_least_is_not_saved(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(SHORT)
        assert await engine.ask(A) == NOTHING
        assert kept(world) == 0


async def test_of_many_conversations_the_most_recent_are_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        for text in (A, B, C):
            await engine.ask(text)
            assert kept(world) <= 2
        assert await engine.ask(f"{B} next") == (300, 300)
        assert await engine.ask(f"{A} next") == (0, 301)  # it had to make way
        assert kept(world) == 2


async def test_what_shares_only_a_system_prompt_is_another_conversation(tmp_path: Path) -> None:
    system = words("system", 200)
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(f"{system} {A}")
        assert await engine.ask(f"{system} {B}") == (0, 500)
        assert await engine.ask(f"{system} {A} next") == (500, 500)


async def test_nothing_is_restored_that_shares_no_more_than_the_slot_does_already(
    tmp_path: Path,
) -> None:
    system = words("system", 300)
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(f"{system} {words('x', 400)}")
        await engine.ask(f"{system} {words('y', 400)}")
        assert await engine.ask(f"{system} {words('z', 400)}") == (0, 700)


@pytest.mark.parametrize("conversations", [0, 2])
async def test_only_a_model_with_the_key_has_its_conversations_take_turns(
    tmp_path: Path, conversations: int
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=conversations)
        await engine.ask(A)
        assert (await engine.ask(B)).saved == (300 if conversations else 0)


async def test_with_several_slots_each_keeps_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2, slots=2)
        for text in (A, B, C):
            assert await engine.ask(text) == NOTHING


async def test_before_a_request_of_unknown_tokens_the_conversation_is_saved(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)

        async def cannot(endpoint: str, body: bytes, timeout_s: float) -> list[int] | None:
            return None

        can, engine.client.tokenize_request = engine.client.tokenize_request, cannot  # type: ignore[method-assign]
        list_of_prompts = Prompt("completions", b'{"prompt":["a","b"]}')
        assert await engine.kv.switch(engine.client, list_of_prompts, 1) == (0, 300)
        engine.slots.take(B)
        # It comes back: nobody knows what was in its slot meanwhile.
        engine.client.tokenize_request = can  # type: ignore[method-assign]
        assert await engine.ask(f"{A} next") == (300, 0)


# -- faults ----------------------------------------------------------------------------------


async def test_a_save_that_is_refused_costs_that_conversation_only(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=3)
        await engine.ask(A)
        await engine.ask(B)
        world.faults.before_save = refuse
        assert await engine.ask(f"{A} next") == (300, 0)
        assert (world.owner.all_counts().failed_saves, kept(world)) == (1, 1)


async def test_a_restore_that_is_refused_costs_its_file_only(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=3)
        await engine.ask(A)
        await engine.ask(B)
        world.faults.before_restore = refuse
        assert await engine.ask(f"{A} next") == (0, 300)
        assert (world.owner.all_counts().failed_restores, kept(world)) == (1, 1)


async def test_an_engine_that_hangs_in_a_save_delays_the_request_no_longer_than_its_stop_would(
    virtual: Clock, tmp_path: Path
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)
        world.faults.before_save = hang
        begun = trio.current_time()
        assert await engine.ask(B) == NOTHING
        assert trio.current_time() - begun == pytest.approx(STOP_S)
        assert world.files == []


async def test_an_engine_that_hangs_in_a_restore_delays_the_request_no_longer_than_the_limit(
    virtual: Clock, tmp_path: Path
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)
        await engine.ask(B)
        world.faults.before_restore = hang
        begun = trio.current_time()
        assert await engine.ask(f"{A} next") == (0, 300)
        assert trio.current_time() - begun == pytest.approx(RESTORE_LIMIT_S)
        assert (world.owner.all_counts().failed_restores, kept(world)) == (1, 1)


async def test_a_client_that_leaves_during_the_save_leaves_no_temporary_file(
    virtual: Clock, tmp_path: Path
) -> None:
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)
        world.faults.before_save = hang
        with trio.move_on_after(1):
            await engine.ask(B)
        assert world.files == []


async def test_what_a_client_that_leaves_did_not_let_be_saved_is_saved_for_the_next(
    virtual: Clock, tmp_path: Path
) -> None:
    """The slot holds the old conversation yet, whoever comes."""
    async with running(tmp_path) as world:
        engine = await world.start(kv_conversations=2)
        await engine.ask(A)
        quick, world.faults.before_save = world.faults.before_save, hang
        with trio.move_on_after(1):
            await engine.ask(B)
        world.faults.before_save = quick
        assert await engine.ask(B) == (0, 300)  # tries again
        assert (await engine.ask(f"{A} next")).restored == 300
