"""An engine with `--sleep-idle-seconds` forgets its slots when it sleeps: they are saved before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.asking import Clock
from tests.support.fake_slots import run_inline
from tests.support.kv_world import A, B, Running, World, running
from trio_gateway.engine.http.connections import Connection

SLEEP = ("--sleep-idle-seconds", "60")


@pytest.fixture
def virtual(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A virtual clock, for which the store works in no time at all."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return autojump_clock


class Idle(Connection):
    def abort(self, error: Exception) -> None:
        pass

    def close(self) -> None:
        pass


@asynccontextmanager
async def started(world: World, *args: str) -> AsyncIterator[Running]:
    engine = await world.start(*args)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.kv.keep_saved, engine.client)
        yield engine
        nursery.cancel_scope.cancel(reason="the engine is stopped")


async def ask(engine: Running, text: str, *, takes_s: float = 1) -> None:
    with engine.client.connections.held(Idle()):
        engine.slots.held[0] = []
        engine.slots.take(text)
        await trio.sleep(takes_s)


async def test_what_it_held_is_saved_before_it_sleeps(virtual: Clock, tmp_path: Path) -> None:
    async with running(tmp_path) as world, started(world, *SLEEP) as engine:
        await ask(engine, A)
        await trio.sleep(49)
        assert world.owner.all_counts().saves == 0
        await trio.sleep(2)
        assert (world.owner.all_counts().saves, world.owner.all_counts().saved_tokens) == (1, 300)
        await trio.sleep(600)
        assert world.owner.all_counts().saves == 1


async def test_a_sleeping_engine_is_not_woken_at_its_stop(virtual: Clock, tmp_path: Path) -> None:
    """It would load its model, and have nothing."""
    async with running(tmp_path) as world, started(world, *SLEEP) as engine:
        await ask(engine, A)
        await trio.sleep(61)
        engine.slots.held[0] = []  # it sleeps
        looks = engine.slots.looks
        assert await engine.save() == 300
        assert engine.slots.looks == looks
        assert (await world.start()).holds(A)


async def test_each_break_has_its_own_save(virtual: Clock, tmp_path: Path) -> None:
    async with running(tmp_path) as world, started(world, *SLEEP) as engine:
        for text in (A, B):
            await ask(engine, text, takes_s=100)
            await ask(engine, text)
            await trio.sleep(55)
        assert world.owner.all_counts().saves == 2
        await ask(engine, A)
        assert await engine.save() == 300  # it does not sleep yet
        assert world.owner.all_counts().saves == 3


@pytest.mark.parametrize(
    "args", [(), ("--sleep-idle-seconds", "-1"), ("--sleep-idle-seconds", "x")]
)
async def test_others_are_saved_at_their_stop(
    virtual: Clock, tmp_path: Path, args: tuple[str, ...]
) -> None:
    async with running(tmp_path) as world, started(world, *args) as engine:
        await ask(engine, A)
        await trio.sleep(3600)
        assert world.owner.all_counts().saves == 0
        assert await engine.save() == 300
