"""Whatever happens to the scheduler, and in whatever order, its promises hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.scheduler_world import World
from tests.support.scheduler_worlds import HAPPENINGS, Do, worlds
from tests.support.thoroughness import examples
from trio_gateway.engine.scheduling.sentence import sentence_of
from trio_gateway.engine.scheduling.waiting import Cause, Waits

# It is all computing, which takes as long as the machine is busy.
pytestmark = [pytest.mark.untraced, pytest.mark.timeout(600)]


MANY = settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow]
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


@settings(MANY, max_examples=examples(100))
@given(worlds(), HAPPENINGS)
def test_whatever_happens_each_ticket_that_waits_is_told_what_for(
    world: World, happenings: list[Do]
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
        state = world.subject.state
        waits = Waits(state, world.subject.window_s, world.now)
        for waiting in waits.of_all(state.tickets.values()).values():
            if waiting.cause is Cause.NOTHING:
                assert state.variants[waiting.key.model][0].pool in world.looks, world.subject
                continue
            assert sentence_of(waiting).startswith(("waits ", "waits, "))


@settings(MANY, max_examples=examples(100))
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
