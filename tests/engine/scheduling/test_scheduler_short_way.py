"""What a request costs where nobody waits: the short way through the scheduler, and that it decides
what the long one would."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.picture import picture
from tests.support.scheduler_tables import GROWING, LARGE, A, B, arrive, brief, ready, scheduler
from tests.support.scheduler_world import World
from tests.support.scheduler_worlds import HAPPENING, HAPPENINGS, Do, worlds
from tests.support.thoroughness import examples
from trio_gateway.engine.scheduling.decisions import Decisions
from trio_gateway.engine.scheduling.events import (
    Action,
    Event,
    LeaseReturned,
    TicketGone,
    TimePassed,
    Unload,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler


class LongWay(Scheduler):
    """It takes the long way with every event."""

    def _handle_shortly(self, event: Event, now: float) -> list[Action] | None:
        return None


class BothWays(Scheduler):
    """Holds each decision, and what is known after it, against those of the long way."""

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self.long = LongWay(*args, **limits)

    def handle(self, event: Event, now: float) -> list[Action]:
        expected = self.long.handle(event, now)
        if event == TicketGone(0):
            # The world's question whether all was decided. Here it is the long way's alone: it
            # would make good what the short way left out.
            return expected
        actions = super().handle(event, now)
        assert actions == expected
        assert self.next_deadline() == self.long.next_deadline()
        assert self.wakes_at <= self.long.wakes_at, "what is due would be missed"
        assert books(self) == books(self.long)
        return actions


def books(subject: Scheduler) -> object:
    """All that later decisions rest on, but the numbers of places, of which the order is tested by
    what is decided with them."""
    state = subject.state
    waiting = [(ticket.id, ticket.size, ticket.turn) for ticket in state.tickets.values()]
    parts = (state.engines, state.forecast, state.back_off, state.variants, [*state.batch], waiting)
    return picture(parts)


@pytest.mark.untraced
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(BothWays), HAPPENINGS, st.lists(HAPPENING, max_size=10), st.integers(0, 2**32))
def test_whatever_happened_before_the_short_way_decides_what_the_long_one_would(
    world: World, happenings: list[Do], closing: list[Do], seed: int
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
    world.shut_down()
    for happening in closing:
        happening.what(world, *happening.arguments)
    world.come_to_rest(random.Random(seed))


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the long way was taken from now on."""
    taken: list[float] = []
    monkeypatch.setattr(Decisions, "decide", lambda self, now, actions: taken.append(now))
    return taken


def running(subject: Scheduler, *, slots: int = 2, context: int = LARGE) -> Scheduler:
    """With an engine 1 of `a`, which ticket 1 has returned."""
    subject.handle(arrive(1, "a", context), 0)
    subject.handle(ready(1, slots, context), 1)
    subject.handle(LeaseReturned(1), 2)
    return subject


def test_a_request_for_a_ready_engine_costs_no_plan(request: pytest.FixtureRequest) -> None:
    subject = running(scheduler(*GROWING, B))
    taken = request.getfixturevalue("undecided")
    assert [*map(brief, subject.handle(arrive(2, "a"), 3))] == ["grant 2 engine 1"]
    assert subject.handle(LeaseReturned(2), 4) == []
    assert taken == []


def test_where_somebody_waits_the_long_way_is_taken(request: pytest.FixtureRequest) -> None:
    subject = running(scheduler(*GROWING, B))
    subject.handle(arrive(2, "a"), 3)
    subject.handle(arrive(3, "b"), 4)
    taken = request.getfixturevalue("undecided")
    subject.handle(arrive(4, "a"), 5)
    subject.handle(LeaseReturned(2), 6)
    assert taken == [5, 6]


def test_the_timer_stays_as_it_is_for_a_request_and_is_set_for_one_that_took_long() -> None:
    subject = running(scheduler(*GROWING, B))
    assert subject.wakes_at == subject.next_deadline() == 302
    subject.handle(arrive(2, "a"), 3)
    subject.handle(LeaseReturned(2), 4)
    assert (subject.wakes_at, subject.next_deadline()) == (302, 304)
    subject.handle(arrive(3, "a"), 5)
    assert subject.handle(TimePassed(), 302) == []
    assert subject.wakes_at == math.inf
    subject.handle(LeaseReturned(3), 303)
    assert subject.wakes_at == subject.next_deadline() == 603


def test_the_last_lease_of_an_engine_that_drains_stops_it() -> None:
    subject = running(scheduler(A), context=1000)
    subject.handle(arrive(2, "a"), 3)
    subject.handle(Unload("a"), 4)
    assert [*map(brief, subject.handle(LeaseReturned(2), 5))] == ["stop 1"]
