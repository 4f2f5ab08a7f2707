"""When the memory of pools is looked at that share it with other programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.asking import Clock
from tests.support.devices import GIB, Said, gpu
from tests.support.scheduler_tables import A
from tests.support.schema_values import config, model
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.engine.configured import Configured
from trio_gateway.engine.memory_watch import MemoryWatch
from trio_gateway.engine.others import Others
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.memory_events import MemorySeen
from trio_gateway.engine.scheduling.state import SchedulerState

AUTO = PoolConfig("primary", memory_auto=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual clock does not wait for threads."""

    async def run(work: Callable[..., object], *args: object, **options: object) -> object:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run)


class World:
    def __init__(self, hardware: Said | None, pool: PoolConfig = AUTO) -> None:
        self.state = SchedulerState([A], {"primary": pool})
        others = None
        if hardware is not None:
            others = Others(hardware, Configured(config(model("a"))), {}, self.state)
        self.told: list[MemorySeen] = []
        self.watch = MemoryWatch(others, self.state, self.told.append)

    def begins_an_engine(self) -> None:
        self.state.add_engine(EngineView(1, A, 100, started_at=trio.current_time()))


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.watch.run)
        yield world
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_it_sleeps_until_somebody_asks_and_then_looks_while_engines_run(
    autojump_clock: Clock,
) -> None:
    hardware = Said(gpu(used=GIB))
    async with watched(World(hardware)) as world:
        await trio.sleep(60)
        assert (hardware.asked, world.told) == (0, [])
        world.watch.look("primary")
        await trio.sleep(1)
        [seen] = world.told
        assert [place.others_bytes for place in seen.places] == [GIB]
        world.begins_an_engine()
        await trio.sleep(20)
        assert 5 <= len(world.told) <= 11
        world.state.forget_engine(1)
        await trio.sleep(10)
        before = hardware.asked
        await trio.sleep(60)
        assert hardware.asked == before


async def test_a_reload_wakes_it(autojump_clock: Clock) -> None:
    async with watched(World(Said(gpu()), PoolConfig("primary"))) as world:
        world.begins_an_engine()
        await trio.sleep(10)
        world.state.memory.pools = {"primary": AUTO}
        world.watch.wake()
        await trio.sleep(1)
        assert [seen.pool for seen in world.told] == ["primary"]


@pytest.mark.parametrize("hardware", [None, Said(faults=["NVIDIA's driver: GPU is lost"])])
async def test_what_cannot_be_read_is_not_known_and_keeps_nobody_waiting(
    autojump_clock: Clock, hardware: Said | None
) -> None:
    async with watched(World(hardware)) as world:
        world.watch.look("primary")
        await trio.sleep(1)
        assert world.told == [MemorySeen("primary", ())]


async def test_a_device_that_is_not_there_is_said_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    pool = PoolConfig("primary", devices=(PoolDevice("cuda:0"), PoolDevice("cuda:7")))
    async with watched(World(Said(gpu()), pool)) as world:
        for _ in range(2):
            world.watch.look("primary")
            await trio.sleep(1)
    assert caplog.text.count("what cuda:7 has cannot be read") == 1
