"""How long a ticket waits for a slot of its own engine, whose slots may share their tokens."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.thoroughness import examples
from tests.support.timed_world import CLOCK_ERROR_S, STOP_S, Ask, TimedWorld
from tests.support.timed_worlds import HAMMER, LEASES, SECONDS, timed_worlds
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import VariantFacts, VariantKey

pytestmark = pytest.mark.untraced

ASKS = st.lists(
    st.builds(
        Ask,
        st.just("a"),
        SECONDS,
        LEASES,
        st.sampled_from((5, 20, 30, 50, 90, 100)),
        st.sampled_from((Priority.INTERACTIVE, *Priority)),
        st.sampled_from((None, None, None, 3.0)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=examples(125), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(timed_worlds())
def test_each_other_client_overtakes_a_ticket_at_most_once(world: TimedWorld) -> None:
    """Unless its own client has several that wait: then it is not its turn for longer."""
    world.run()
    for wait in world.waits.values():
        if wait.asked.client != HAMMER:
            assert max(world.overtakers(wait).values(), default=0) <= 1, wait


@settings(max_examples=examples(125), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    clients=st.lists(ASKS, min_size=1, max_size=6),
    slots=st.integers(1, 4),
    shared_percent=st.sampled_from((None, 100, 130)),
    load_s=st.sampled_from((1.0, 8.0)),
)
def test_at_one_engine_a_ticket_waits_the_load_and_two_leases_of_each_other_client_at_most(
    clients: list[list[Ask]], slots: int, shared_percent: int | None, load_s: float
) -> None:
    """One that each has or waits for by then, and one of its next turn; all one after the other,
    as one that needs all tokens runs alone. A start may have been given up a moment before."""
    a = VariantFacts(key=VariantKey("a", "100"), pool="p", context=100)
    world = TimedWorld([a], 1, 2.0, {a.key: load_s}, slots, shared_percent)
    for number, asks in enumerate(clients):
        world.add_client(f"client {number}", asks)
    world.run()
    bound_s = STOP_S + load_s + 2 * (len(clients) - 1) * world.longest_lease_s("a")
    for wait in world.waits.values():
        assert wait.ended - wait.since <= bound_s + CLOCK_ERROR_S, wait
