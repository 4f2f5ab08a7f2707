"""Whatever happens to the scheduler, and in whatever order, its promises hold."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.scheduler_world import World
from tests.support.scheduler_worlds import BYTES, NEEDS, worlds
from tests.support.thoroughness import examples
from trio_gateway.config.priority import Priority

pytestmark = pytest.mark.untraced


class Do(NamedTuple):
    """Something that happens to a world."""

    what: Callable[..., None]
    arguments: tuple[object, ...]

    def __repr__(self) -> str:
        return f"{self.what.__name__}{self.arguments}"


def every(what: Callable[..., None], *choices: Iterable[object]) -> st.SearchStrategy[Do]:
    return st.sampled_from([Do(what, arguments) for arguments in itertools.product(*choices)])


CHOICE = range(6)
ARRIVALS = every(
    World.arrive, "aaabbcd", NEEDS, (0, 0, 60, 300), "xxyz", (Priority.INTERACTIVE, *Priority)
)
READIES = every(
    World.engine_gets_ready, CHOICE, (1, 2, 3), (100, 100, 100, 100, 60, 120), (None, 60, 100, 150)
)
RETURNS = every(World.lease_ends, CHOICE)
EXITS = every(World.engine_exits, CHOICE)
WAITS = every(World.time_passes, (0.5, 1.0, 4.9, 5.0, 31.0, 100.0))
MISHAPS = st.one_of(
    every(World.client_leaves, CHOICE),
    every(World.start_fails, CHOICE),
    every(World.engine_crashes, CHOICE),
    every(World.engine_is_measured, CHOICE, BYTES),
    every(World.is_unloaded, "abcd"),
    every(World.is_kept, "abcd", (None, 5.0, 60.0), (True, False)),
)
HAPPENING = st.one_of(
    ARRIVALS, ARRIVALS, ARRIVALS, READIES, READIES, RETURNS, EXITS, WAITS, MISHAPS
)
# Long ones are where it gets difficult, short ones are what a failing one shrinks to.
HAPPENINGS = st.one_of(
    st.lists(HAPPENING, min_size=15, max_size=60),
    st.lists(HAPPENING, min_size=30, max_size=60),
    st.lists(HAPPENING, max_size=60),
)
MANY = settings(
    max_examples=examples(1500), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@MANY
@given(worlds(), HAPPENINGS, st.integers(0, 2**32))
def test_whatever_happens_the_promises_hold_and_every_ticket_ends(
    world: World, happenings: list[Do], seed: int
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
    world.come_to_rest(random.Random(seed))
    assert world.ended == set(range(1, world.next_ticket))
    world.time_passes(1000.0)
    world.come_to_rest(random.Random(seed))
    assert not world.live, "an engine outlived its idle timeout"
    assert world.subject.next_deadline() is None


@settings(MANY, max_examples=examples(500))
@given(worlds(), HAPPENINGS, HAPPENINGS, st.integers(0, 2**32))
def test_whenever_a_shutdown_comes_all_tickets_end_at_once_and_all_engines_stop(
    world: World, before: list[Do], after: list[Do], seed: int
) -> None:
    for happening in before:
        happening.what(world, *happening.arguments)
    world.shut_down()
    assert not world.waiting
    for happening in after:
        happening.what(world, *happening.arguments)
        assert not world.waiting
    world.come_to_rest(random.Random(seed))
    assert not world.live
