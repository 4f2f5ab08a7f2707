"""How long a ticket waits for other models' engines: no longer than rule 5 of the scheduler says.

What is measured is the time until an engine that can serve the ticket is ready, counted from its
arrival, or for a batch ticket from when it has aged.

In that time each other model of the pool may have a *turn*: the rest of a load, then what its
engine goes on to serve for (the fairness window, or twice its own and the next one's load while
older tickets wait), then the longest lease and the stop. What remains is the ticket's own load.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.thoroughness import examples
from tests.support.timed_world import CLOCK_ERROR_S, STOP_S, Ask, TimedWorld
from tests.support.timed_worlds import LEASES, hammering, timed_worlds
from trio_gateway.engine.scheduling.events import VariantFacts, VariantKey

pytestmark = pytest.mark.untraced


@settings(max_examples=examples(125), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(timed_worlds())
def test_no_ticket_waits_for_other_engines_longer_than_the_bound(world: TimedWorld) -> None:
    world.run()
    for wait in world.waits.values():
        assert wait.until is not None
        assert wait.until - wait.since <= world.bound_s(wait) + CLOCK_ERROR_S, wait


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(timed_worlds())
def test_while_a_ticket_waits_no_variant_of_another_model_is_started_twice(
    world: TimedWorld,
) -> None:
    world.run()
    for wait in world.waits.values():
        assert max(world.starts_of_others(wait).values(), default=0) <= 1, wait


@settings(max_examples=examples(60), deadline=None)
@given(
    streams=st.lists(LEASES, min_size=1, max_size=4),
    slots=st.integers(1, 4),
    loads=st.tuples(st.sampled_from((1.0, 3.0, 8.0)), st.sampled_from((1.0, 3.0, 8.0))),
    pauses=st.lists(st.sampled_from((0.1, 5.0, 12.0, 30.0)), min_size=1, max_size=4),
)
def test_beside_one_hammering_client_a_person_waits_the_window_a_lease_a_stop_and_a_load(
    streams: list[float], slots: int, loads: tuple[float, float], pauses: list[float]
) -> None:
    """The bound on waiting, to the second: the engine of the other model is ready, and what
    waits there is over before the window is."""
    a, b = (VariantFacts(key=VariantKey(m, "100"), pool="p", context=100) for m in "ab")
    world = TimedWorld([a, b], 1, 40.0, {a.key: loads[0], b.key: loads[1]}, slots=slots)
    for lease_s in streams:
        world.add_client("hammer", hammering("a", int(200 / lease_s) + 1, lease_s))
    world.add_client("person", [Ask("b", 60.0 + pause_s, 1.0) for pause_s in pauses], 20.0)
    world.run()
    for wait in world.waits.values():
        if wait.asked.model == "b":
            assert wait.until is not None
            bound_s = world.window_s + max(streams) + STOP_S + loads[1]
            assert wait.until - wait.since <= bound_s + CLOCK_ERROR_S
