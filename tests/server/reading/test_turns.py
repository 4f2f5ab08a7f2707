"""Who is next at a place of which there are few."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.testing import wait_all_tasks_blocked

from trio_gateway.server.reading.turns import Turns


class World:
    """Clients that want one place each, which they leave when they are told."""

    def __init__(self, nursery: trio.Nursery, places: int) -> None:
        self.subject, self._nursery = Turns(places), nursery
        self.served: list[str] = []
        self._leave: dict[str, trio.CancelScope] = {}

    async def come(self, *names: str) -> None:
        """The first letter of a name is its client."""
        for name in names:
            self._nursery.start_soon(self._stay, name)
            await wait_all_tasks_blocked()

    async def leave(self, *names: str) -> None:
        """Those who wait give up."""
        for name in names:
            self.cancel(name)
            await wait_all_tasks_blocked()

    def cancel(self, name: str) -> None:
        self._leave.pop(name).cancel(reason="told to leave")

    async def _stay(self, name: str) -> None:
        with trio.CancelScope() as self._leave[name]:
            async with self.subject.of(name[0]):
                self.served.append(name)
                await trio.sleep_forever()


async def served(places: int, come: Sequence[str], leave: Sequence[str]) -> list[str]:
    """In which order, after these came and then these left."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, places)
        await world.come(*come)
        await world.leave(*leave)
        nursery.cancel_scope.cancel(reason="the test is over")
    return world.served


async def test_of_one_client_who_comes_first_is_first() -> None:
    assert await served(2, ["a1", "a2", "a3", "a4"], ["a2", "a1"]) == ["a1", "a2", "a3", "a4"]


async def test_whoever_has_asked_once_waits_for_nobody_that_asks_often() -> None:
    come = ["a1", "a2", "a3", "a4", "b1", "c1"]
    assert await served(1, come, ["a1", "a2", "b1", "c1"]) == ["a1", "a2", "b1", "c1", "a3"]


async def test_who_gives_up_keeps_no_place_in_the_line() -> None:
    assert await served(1, ["a1", "b1", "a2", "b2"], ["b1", "a1", "b2"]) == ["a1", "b2", "a2"]
    assert await served(1, ["a1", "b1", "a2"], ["b1", "a1"]) == ["a1", "a2"]


async def test_a_place_that_nobody_waits_for_is_free_again() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, 1)
        for name in ("a1", "b1", "a2"):
            await world.come(name)
            assert world.served[-1] == name
            await world.leave(name)


async def test_a_turn_that_comes_to_someone_who_is_leaving_is_not_lost() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, 1)
        await world.come("a1", "b1", "c1")
        world.cancel("b1")  # at the same time, in either order
        world.cancel("a1")
        await wait_all_tasks_blocked()
        assert world.served == ["a1", "c1"]
        nursery.cancel_scope.cancel(reason="the test is over")
