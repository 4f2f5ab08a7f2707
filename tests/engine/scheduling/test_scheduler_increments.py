"""What is kept from one event to the next is what would be found by looking at everything again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.scheduler_world import World
from tests.support.scheduler_worlds import HAPPENINGS, Do, worlds
from tests.support.thoroughness import examples
from trio_gateway.engine.scheduling.events import Action, Event
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.state import SchedulerState

pytestmark = [pytest.mark.untraced, pytest.mark.timeout(600)]


class Anew(Scheduler):
    """It looks at every model after every event."""

    def handle(self, event: Event, now: float) -> list[Action]:
        self.state.touch_all()
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


def indexes_hold(state: SchedulerState) -> None:
    engines = [*state.engines.values()]
    for model in "abcd":
        of_model = [engine for engine in engines if engine.key.model == model]
        assert [*state.each_of(model)] == of_model
    for pool in state.pools:
        assert [*state.engines_in(pool)] == [e for e in engines if e.facts.pool == pool]
    idle = [
        engine.used_at + state.variants.idle_timeout_s(engine.facts)
        for engine in engines
        if engine.state is EngineState.READY and not engine.leases
    ]
    assert state.idle.next_due() == min(idle, default=math.inf)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(BothWays), HAPPENINGS)
def test_whatever_happens_only_what_it_touches_has_to_be_looked_at(
    world: World, happenings: list[Do]
) -> None:
    for happening in happenings:
        happening.what(world, *happening.arguments)
        indexes_hold(world.subject.state)
