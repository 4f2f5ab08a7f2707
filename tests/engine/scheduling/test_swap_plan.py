"""Which engines make way for which demand, and when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.scheduler_tables import variant
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView, HeldLease
from trio_gateway.engine.scheduling.events import VariantFacts
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Planner, Step
from trio_gateway.engine.scheduling.ticket_queue import Counting, Ticket

WINDOW_S, NOW = 10.0, 1000.0
A, B, C, D = (variant(model) for model in "abcd")
SHARED = "http://127.0.0.1:8081"
READY, DRAINING = EngineState.READY, EngineState.DRAINING
STARTING, STOPPING = EngineState.STARTING, EngineState.STOPPING


def pool(
    *engines: EngineView, limit: int = 1, variants: Sequence[VariantFacts] = (A, B, C, D)
) -> SchedulerState:
    state = SchedulerState(
        variants, {"primary": PoolConfig("primary", limit), "secondary": PoolConfig("secondary", 1)}
    )
    for engine in engines:
        state.add_engine(engine)
    return state


def engine(
    number: int,
    facts: VariantFacts,
    state: EngineState = READY,
    *,
    leases: Sequence[Priority] = (),
    used_at: float = 0.0,
) -> EngineView:
    """Ready since time 0, if it is."""
    return EngineView(
        number,
        facts,
        facts.context,
        started_at=0.0,
        slots=4,
        state=state,
        leases={
            100 * number + n: HeldLease(0.0, priority, 100, 100, Counting.DONE)
            for n, priority in enumerate(leases)
        },
        used_at=used_at,
        ready_at=None if state is STARTING else 0.0,
    )


def busy(number: int, facts: VariantFacts, state: EngineState = READY) -> EngineView:
    return engine(number, facts, state, leases=[Priority.INTERACTIVE])


def demand(
    facts: VariantFacts, since: float = NOW, priority: Priority = Priority.INTERACTIVE
) -> Demand:
    return Demand(facts, priority, since, place=1, size=facts.context)


def waits(state: SchedulerState, model: str, priority: Priority, arrived_at: float = NOW) -> None:
    state.add_ticket(Ticket(1, model, 100, "x", priority, arrived_at, A.context))


def plan(state: SchedulerState, *demands: Demand) -> list[Step]:
    return Planner(state, WINDOW_S, NOW).steps(demands)


def victims(step: Step) -> list[int]:
    return [victim.id for victim in step.victims]


def test_in_an_empty_pool_a_demand_may_start() -> None:
    (step,) = plan(pool(), demand(A))
    assert (victims(step), step.may_start) == ([], True)


def test_as_many_demands_may_start_as_the_pool_has_engines() -> None:
    steps = plan(pool(limit=2), demand(A), demand(B), demand(C))
    assert [step.may_start for step in steps] == [True, True]


def test_an_engine_that_stops_holds_its_room_but_need_not_go() -> None:
    (step,) = plan(pool(engine(1, A, STOPPING)), demand(B))
    assert (victims(step), step.may_start) == ([], False)


@pytest.mark.parametrize(
    ("in_the_way", "since", "yields_at"),
    [
        (engine(1, A), NOW, AT_ONCE),
        (engine(1, A, STARTING), NOW, AT_ONCE),
        (busy(1, A), NOW - 4, NOW + 6),
        (busy(1, A), NOW - 400, NOW - 390),
        (busy(1, A), -500, WINDOW_S),
    ],
    ids=["idle", "unwanted start", "busy", "busy for long", "ready later"],
)
def test_when_an_engine_makes_way(in_the_way: EngineView, since: float, yields_at: float) -> None:
    (step,) = plan(pool(in_the_way), demand(B, since))
    assert (victims(step), step.yields_at) == ([1], yields_at)


@pytest.mark.parametrize("priority", Priority)
def test_a_start_that_anybody_waits_for_is_not_given_up(priority: Priority) -> None:
    state = pool(engine(1, A, STARTING))
    waits(state, "a", priority)
    (step,) = plan(state, demand(B))
    assert step.yields_at == NEVER


@pytest.mark.parametrize(
    ("leases", "yields_at"),
    [([Priority.INTERACTIVE], NEVER), ([Priority.BATCH], NOW + WINDOW_S), ([], AT_ONCE)],
    ids=["interactive", "batch", "idle"],
)
def test_a_batch_demand_leaves_interactive_leases_alone(
    leases: list[Priority], yields_at: float
) -> None:
    state = pool(engine(1, A, leases=leases))
    (step,) = plan(state, demand(B, priority=Priority.BATCH))
    assert step.yields_at == yields_at


def test_an_idle_engine_with_batch_tickets_only_makes_way_for_an_interactive_demand_at_once() -> (
    None
):
    state = pool(engine(1, A))
    waits(state, "a", Priority.BATCH)
    (step,) = plan(state, demand(B))
    assert step.yields_at == AT_ONCE


@pytest.mark.parametrize(
    ("one", "other", "goes"),
    [
        (engine(1, variant("a", pinned=True)), busy(2, B), 2),
        (busy(1, A), engine(2, B), 2),
        (engine(1, A, used_at=999), engine(2, B, used_at=900), 2),
        (engine(1, variant("a", load_time_s=5)), engine(2, B), 1),
        (engine(1, variant("a", load_time_s=20), used_at=900), engine(2, B, used_at=999), 1),
        (engine(1, A), engine(2, variant("c:small", 100), used_at=999), 2),
    ],
    ids=["pinned", "busy", "recent", "cheap", "cheap by recency", "outgrown"],
)
def test_which_of_two_engines_goes_for_a_third(
    one: EngineView, other: EngineView, goes: int
) -> None:
    (step,) = plan(pool(one, other, limit=2), demand(C))
    assert victims(step) == [goes]


@pytest.mark.parametrize(("since", "goes"), [(NOW - WINDOW_S, 1), (NOW, 2)], ids=["too", "not yet"])
def test_an_engine_that_drains_goes_before_an_idle_one_if_it_would_drain_for_this_demand_too(
    since: float, goes: int
) -> None:
    state = pool(busy(1, A, DRAINING), engine(2, B), limit=2)
    (step,) = plan(state, demand(C, since))
    assert victims(step) == [goes]


def test_a_demand_leaves_an_engine_alone_that_drains_for_a_later_one_with_a_longer_wait() -> None:
    """Else it would be called back for the first, and drain for the second again: the one in batch
    has waited for longer than the window, the other one has not."""
    state = pool(busy(1, A), engine(2, B, DRAINING, leases=[Priority.BATCH]), limit=2)
    first, second = plan(state, demand(C), demand(D, NOW - 400, Priority.BATCH))
    assert (victims(first), victims(second)) == ([1], [2])
    assert (first.yields_at, second.yields_at) == (NOW + WINDOW_S, NOW - 400 + WINDOW_S)


def test_each_demand_has_engines_of_its_own_that_go_for_it() -> None:
    first, second = plan(pool(busy(1, A), busy(2, B), limit=2), demand(C), demand(D))
    assert victims(first) + victims(second) == [1, 2]


def test_a_demand_for_which_no_engine_is_left_has_to_wait_with_all_behind_it() -> None:
    steps = plan(pool(busy(1, A)), demand(B), demand(C), demand(D))
    assert [step.demand.facts for step in steps] == [B]


def test_nobody_overtakes_a_demand_that_finds_no_room_though_it_is_small_enough() -> None:
    sized = [variant(model, declared=size) for model, size in (("a", 9), ("b", 5), ("c", 1))]
    state = SchedulerState(sized, {"primary": PoolConfig("primary", 3, memory_bytes=10)})
    steps = plan(state, *map(demand, sized))
    assert [step.demand.facts.key.model for step in steps] == ["a"]


def test_a_full_pool_is_no_matter_for_another() -> None:
    elsewhere = variant("e", pool="secondary")
    state = pool(busy(1, A), variants=(A, B, C, elsewhere))
    steps = plan(state, demand(B), demand(C), demand(elsewhere))
    assert [step.may_start for step in steps] == [False, True]


def test_an_engine_that_drains_for_nobody_else_serves_the_demand_itself() -> None:
    assert plan(pool(busy(1, A, DRAINING)), demand(A)) == []


def test_an_engine_that_drains_serves_the_demand_if_it_holds_the_needs_without_room_to_grow() -> (
    None
):
    small, large = variant("a:small", 1000), variant("a:large", 4000)
    state = pool(busy(1, small, DRAINING), limit=2, variants=(small, large))
    planner = Planner(state, WINDOW_S, NOW)
    assert planner.steps([Demand(large, Priority.INTERACTIVE, NOW, place=1, size=1000)]) == []
    assert [engine.id for engine in planner.called_back] == [1]


def test_whoever_has_the_address_goes_whatever_pool_it_is_in() -> None:
    holder = variant("e", endpoint=SHARED, pool="secondary")
    wanted = variant("a", endpoint=SHARED)
    state = pool(busy(1, holder), variants=(wanted, holder))
    (step,) = plan(state, demand(wanted))
    assert (victims(step), step.may_start) == ([1], False)


def test_an_address_that_an_earlier_demand_waits_for_is_taken() -> None:
    first, second = variant("a", endpoint=SHARED), variant("e", endpoint=SHARED, pool="secondary")
    state = pool(busy(1, B), variants=(first, B, second))
    steps = plan(state, demand(first), demand(second))
    assert [step.demand.facts for step in steps] == [first]
