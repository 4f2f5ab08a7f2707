"""Saved conversations belong to the API key that had them, where keys are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.support.asking import Clock
from tests.support.fake_slots import ids_of, run_inline
from tests.support.kv_world import A, B, World, prompt, running
from trio_gateway.engine.clients.facts import Place, Reach
from trio_gateway.engine.kv.slot_owners import SlotOwners


@pytest.fixture(autouse=True)
def virtual(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return autojump_clock


def apart() -> SlotOwners:
    return SlotOwners(is_trusted=True)


async def saved_of_both(world: World) -> None:
    """A of the key `a` in slot 0, B of the key `b` in slot 1."""
    owners = apart()
    engine = await world.start(slots=2, owners=owners)
    for slot, (text, owner) in enumerate([(A, "a"), (B, "b")]):
        owners.restored(slot, owner)
        engine.slots.held[slot] = []
        engine.slots.take(text)
    assert await engine.save() == 600


async def test_only_its_owner_s_waiting_request_brings_a_conversation_back_first(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await saved_of_both(world)
        owners = apart()
        engine = await world.start(waiting=[f"{A} next"], whose=["b"], owners=owners)
        assert engine.holds(B)  # the last used: what waits is nobody's to go on with
        owners = apart()
        engine = await world.start(waiting=[f"{A} next"], whose=["a"], owners=owners)
        assert engine.holds(A)
        assert (engine.kv.restored_for("a"), engine.kv.restored_for("b")) == (300, 0)
        assert owners.owner_of(0) == "a"


async def test_each_request_is_sent_where_its_own_conversation_came_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await saved_of_both(world)
        owners = apart()
        waiting = [f"{A} next", f"{B} next"]
        engine = await world.start(slots=2, waiting=waiting, whose=["a", "b"], owners=owners)
        for owner, text in zip("ab", (A, B), strict=True):
            body = prompt(f"{text} next").body
            place = owners.place(owner, body, Reach.SLOT)
            assert place == Place(engine.slots.held.index(ids_of(text)), True, is_told=True)
            owners.leave(place)


async def test_what_nobody_is_known_to_own_is_not_restored_and_not_saved(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.saved(A)  # by a gateway that kept nobody apart
        assert (await world.start(waiting=[A], whose=["a"], owners=apart())).holds("")
        owners = apart()
        engine = await world.start(slots=2, owners=owners)
        for owner in "ab":  # an answer in several slots leaves its text in all of them
            owners.leave(owners.place(owner, b"", Reach.REUSE))
        engine.slots.take(B)
        assert await engine.save() == 0


async def test_conversations_of_two_keys_take_turns_in_one_slot(tmp_path: Path) -> None:
    """Not even a prompt that goes on with another key's is taken for a turn of it."""
    async with running(tmp_path) as world:
        owners = apart()
        engine = await world.start(owners=owners, kv_conversations=4)

        async def ask(text: str, owner: str) -> tuple[int, int, bool]:
            move = await engine.ask(text, owner)
            place = owners.place(owner, b"", Reach.SLOT)
            owners.leave(place)
            return move.restored, move.saved, place.may_reuse

        assert await ask(A, "a") == (0, 0, True)
        assert await ask(f"{A} guess", "b") == (0, 0, False)
        assert len([s for s in world.files if s == ".bin"]) == 1  # a's, kept for a
        assert await ask(f"{A} next", "a") == (300, 0, True)
        assert await ask(f"{A} guess more", "b") == (301, 0, True)  # its own
