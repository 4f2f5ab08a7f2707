"""What is kept from one event to the next is what would be found by looking at everything again."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.scheduler_cpu import Size, crowd
from benchmarks.simulator import Simulation
from tests.support.scheduler_world import World
from tests.support.scheduler_worlds import HAPPENINGS, Do, worlds
from tests.support.thoroughness import examples
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demands
from trio_gateway.engine.scheduling.events import Action, Event, TicketArrived
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.state import SchedulerState, touch_all
from trio_gateway.engine.scheduling.swap_plan import Planner

pytestmark = [pytest.mark.untraced, pytest.mark.timeout(600)]


class Anew(Scheduler):
    """It looks at every model after every event."""

    def handle(self, event: Event, now: float) -> list[Action]:
        touch_all(self.state)
        return super().handle(event, now)


class BothWays(Scheduler):
    """Holds each decision, and when the next one is due, against those that are made anew."""

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self.anew = Anew(*args, **limits)

    def handle(self, event: Event, now: float) -> list[Action]:
        expected = self.anew.handle(event, now)
        actions = super().handle(event, now)
        assert actions == expected
        assert self.next_deadline() == self.anew.next_deadline()
        return actions


class Checked(Scheduler):
    """Some of the tickets are batch ones. Held against the planner after every event."""

    def handle(self, event: Event, now: float) -> list[Action]:
        if isinstance(event, TicketArrived) and event.ticket % 9 == 0:
            event = msgspec.structs.replace(event, priority=Priority.BATCH)
        actions = super().handle(event, now)
        engines_are_held_back_as_planned(self, now)
        return actions


def indexes_hold(state: SchedulerState) -> None:
    engines = [*state.engines.values()]
    for model in "abcd":
        of_model = [engine for engine in engines if engine.key.model == model]
        assert [*state.index.of_model(model)] == of_model
    for pool in state.pools:
        assert [*state.index.in_pool(pool)] == [e for e in engines if e.facts.pool == pool]
    idle = [
        engine.used_at + state.variants.idle_timeout_s(engine.facts)
        for engine in engines
        if engine.state is EngineState.READY and not engine.leases
    ]
    assert state.idle.next_due() == min(idle, default=math.inf)


def engines_are_held_back_as_planned(subject: Scheduler, now: float) -> None:
    """As the plan that the planner makes for this moment, for all pools together."""
    state = subject.state
    demands, _, _ = Demands(state).now(now)
    expected: dict[int, tuple[bool, float | None]] = {}
    for step in Planner(state, subject.window_s, now).steps(demands):
        if step.yields_at > now:
            closed_since = step.demand.since if step.closes_at <= now else None
            how = step.demand.priority is Priority.INTERACTIVE, closed_since
            expected |= {victim.id: how for victim in step.victims}
    for number, engine in state.engines.items():
        told = engine.batch_waits, engine.closed_since
        assert told == expected.get(number, (False, None)), engine


ANY = settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@ANY
@given(worlds(BothWays), HAPPENINGS)
def test_whatever_happens_only_what_it_touches_has_to_be_looked_at(
    world: World, happenings: list[Do]
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
        indexes_hold(world.subject.state)


@ANY
@given(worlds(counting=True), HAPPENINGS, st.integers(0, 2**32))
def test_whatever_happens_a_plan_stands_only_while_it_would_be_made_again(
    world: World, happenings: list[Do], seed: int
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
        engines_are_held_back_as_planned(world.subject, world.now)
    world.come_to_rest(random.Random(seed))
    assert world.ended == set(range(1, world.next_ticket))


@pytest.mark.parametrize("pools", [1, 2])
def test_in_a_crowd_a_plan_stands_only_while_it_would_be_made_again(pools: int) -> None:
    size = Size(60, 6, 12, pools, patience_s=(2.0, 30.0))
    Simulation(crowd(1, size, 800), Checked, window_s=3.0, events=800).play()
