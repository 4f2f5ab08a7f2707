"""A need that is no more than a bound is counted again, once an engine of its model can tell."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    SMALL,
    A,
    B,
    Step,
    arrive,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    LeaseReturned,
    Recounted,
    Refusal,
    Reject,
    TicketGone,
    TimePassed,
)
from trio_gateway.engine.scheduling.recounts import COUNT_LIMIT_S, PATIENCE_LOADS
from trio_gateway.engine.scheduling.scheduler import Scheduler

LOAD_S = 10.0  # of the variants in the tables


def starting(*, primary: int = 1, window_s: float = 0.0) -> Scheduler:
    """The small variant of `a` starts for ticket 1."""
    subject = scheduler(*GROWING, B, primary=primary, window_s=window_s)
    play(subject, [(0, arrive(1, "a"), ["start a:small as 1"])])
    return subject


def test_who_is_taken_for_too_large_by_an_estimate_waits_for_the_engine_that_can_count() -> None:
    """As a chat with many tools, 50 ms after a small one."""
    subject = starting()
    play(
        subject,
        [
            (0.05, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (2, LeaseReturned(1), []),
            (2.1, Recounted(2, 63), ["grant 2 engine 1"]),
        ],
    )
    assert subject.state.engines[1].leases[2].need == 63


def test_it_is_counted_while_the_engine_works_and_takes_a_free_slot() -> None:
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1, slots=2), ["grant 1 engine 1", "count 2"]),
            (1, Recounted(2, 63), ["grant 2 engine 1"]),
        ],
    )


def test_what_really_is_too_large_gets_its_engine_after_the_count() -> None:
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (2, LeaseReturned(1), []),
            (2, Recounted(2, 2500), ["stop 1"]),
            (3, EngineExited(1), ["start a:large as 2"]),
        ],
    )


def test_the_count_may_be_worth_a_smaller_engine_than_the_estimate() -> None:
    middle = variant("a:middle", 2000)
    subject = scheduler(GROWING[0], middle, GROWING[1])
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (1, Recounted(2, 1500, 1600), ["drain 1"]),
            (2, LeaseReturned(1), ["stop 1"]),
            (3, EngineExited(1), ["start a:middle as 2"]),
        ],
    )


def test_with_room_for_both_it_waits_all_the_same_but_not_for_ever() -> None:
    patience_s = PATIENCE_LOADS * LOAD_S
    play(
        starting(primary=2),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (patience_s - 1, TimePassed(), []),
            (patience_s, TimePassed(), ["start a:large as 2"]),
        ],
    )


def test_a_count_that_does_not_come_is_not_waited_for_for_ever() -> None:
    subject = starting()
    play(
        subject,
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (2, LeaseReturned(1), []),
        ],
    )
    assert subject.next_deadline() == 1 + COUNT_LIMIT_S
    play(
        subject,
        [
            (1 + COUNT_LIMIT_S, TimePassed(), ["stop 1"]),
            (12, EngineExited(1), ["start a:large as 2"]),
            (12, Recounted(2, 63), []),
            (13, ready(2, context=LARGE), ["grant 2 engine 2"]),
        ],
    )


@pytest.mark.parametrize(
    "arrival",
    [arrive(2, "a", 3000), arrive(2, "a", 3000, least=SMALL + 1)],
    ids=["it is exact", "it is larger in any case"],
)
def test_what_a_count_could_not_change_is_started_at_once(arrival: object) -> None:
    play(starting(primary=2), [(0, arrival, ["start a:large as 2"])])  # type: ignore[list-item]


def test_without_any_engine_the_estimate_decides_at_once() -> None:
    play(scheduler(*GROWING), [(0, arrive(1, "a", 3000, least=40), ["start a:large as 1"])])


def test_who_comes_while_the_engine_runs_is_counted_before_it_grows() -> None:
    """Where the engine was not there yet when it was counted."""
    play(
        starting(),
        [
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a", 3000, least=40), ["count 2"]),
            (2, Recounted(2, 900), []),
            (3, LeaseReturned(1), ["grant 2 engine 1"]),
        ],
    )


def test_an_engine_that_cannot_count_is_not_waited_for_again() -> None:
    subject = starting(primary=2)
    play(
        subject,
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (1, Recounted(2, None), ["start a:large as 2"]),
            (2, TicketGone(2), ["stop 2"]),
            (2, EngineExited(2), []),
            (3, LeaseReturned(1), []),
            (4, EngineExited(1), []),
            (5, arrive(3, "a"), ["start a:small as 3"]),
            (5, arrive(4, "a", 3000, least=40), ["start a:large as 4"]),
        ],
    )


def test_when_the_engine_fails_to_start_the_estimate_decides() -> None:
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, EngineFailed(1, "boom"), ["reject 1 START_FAILED", "start a:large as 2"]),
        ],
    )


def test_when_nobody_else_wants_the_engine_any_more_the_estimate_decides() -> None:
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, TicketGone(1), ["stop 1"]),
            (2, EngineExited(1), ["start a:large as 2"]),
        ],
    )


def test_a_larger_engine_serves_it_without_a_count() -> None:
    play(
        starting(primary=2),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, arrive(3, "a", 3000), ["start a:large as 2"]),
            (2, ready(1), ["grant 1 engine 1"]),
            (3, ready(2, slots=2, context=LARGE), ["grant 2 engine 2", "grant 3 engine 2"]),
        ],
    )


def test_what_turns_out_to_be_too_long_is_refused() -> None:
    (refused,) = play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (1, Recounted(2, LARGE + 1), ["reject 2 TOO_LARGE"]),
        ],
    )
    assert isinstance(refused, Reject)
    assert refused.refusal is Refusal.TOO_LARGE


def test_its_turn_is_the_one_that_it_had() -> None:
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, client="x", least=40), []),
            (0, arrive(3, "a", client="y"), []),
            (0, arrive(4, "a", client="y"), []),
            (1, ready(1), ["grant 1 engine 1", "count 2"]),
            (1, Recounted(2, 63), []),
            (2, LeaseReturned(1), ["grant 2 engine 1"]),
            (3, LeaseReturned(2), ["grant 3 engine 1"]),
        ],
    )


def test_another_model_that_waits_is_in_nobodys_way() -> None:
    """The engine that was to count makes way, and its model has had its turn."""
    play(
        starting(),
        [
            (0, arrive(2, "a", 3000, least=40), []),
            (0.5, arrive(3, "b"), []),
            (1, ready(1), ["grant 1 engine 1", "count 2", "drain 1"]),
            (2, LeaseReturned(1), ["stop 1"]),
            (3, EngineExited(1), ["start b:only as 2"]),
            (4, ready(2), ["grant 3 engine 2", "drain 2"]),
            (5, LeaseReturned(3), ["stop 2"]),
            (6, EngineExited(2), ["start a:large as 3"]),
        ],
    )


def test_an_idle_engine_does_not_make_way_while_it_counts_for_one_that_came_before() -> None:
    play(
        starting(window_s=5),
        [
            (1, ready(1), ["grant 1 engine 1"]),
            (2, LeaseReturned(1), []),
            (3, arrive(2, "a", 3000, least=40), ["count 2"]),
            (3, arrive(3, "b"), []),
            (3.1, Recounted(2, 63), ["grant 2 engine 1"]),
            (4, LeaseReturned(2), ["stop 1"]),
        ],
    )


# -- tokens that slots share -----------------------------------------------------------------


def sharing(need: int = 600, least: int | None = 100) -> Scheduler:
    """An engine of `a` whose four slots share 1000 tokens; ticket 1 has so many of them."""
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a", need, least=least), ["start a:only as 1"]),
            (0, ready(1, slots=4, shared_tokens=SMALL), ["grant 1 engine 1"]),
        ],
    )
    return subject


def test_before_a_ticket_waits_for_tokens_it_and_those_that_have_them_are_counted() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 600, least=100), ["count 2", "count 1"]),
            (1, Recounted(2, 300), ["grant 2 engine 1"]),
            (1, arrive(3, "a", 600, least=100), ["count 3"]),
            (1, Recounted(3, 300), []),
            (1, Recounted(1, 300), ["grant 3 engine 1"]),
        ],
    )


def test_one_that_is_exact_has_the_others_counted() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 600), ["count 1"]),
            (1, Recounted(1, 400), ["grant 2 engine 1"]),
        ],
    )


STEPS_THAT_NEED_NO_COUNT: list[list[Step]] = [
    [(1, arrive(2, "a", 400, least=100), ["grant 2 engine 1"])],
    [(1, arrive(2, "a", 950, least=901), [])],
    [(1, arrive(2, "a", 600, client="x"), ["count 1"]), (2, arrive(3, "a", 600), [])],
]


@pytest.mark.parametrize(
    "steps", STEPS_THAT_NEED_NO_COUNT, ids=["it fits", "no count makes room", "asked already"]
)
def test_nothing_is_counted_where_that_changes_nothing(steps: list[Step]) -> None:
    play(sharing(), steps)


def test_nobody_is_overtaken_while_a_count_is_under_way() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 600, least=100), ["count 2", "count 1"]),
            (1, arrive(3, "a", 10), []),
            (1, Recounted(1, None), []),
            (1, Recounted(2, None), []),
            (2, LeaseReturned(1), ["grant 2 engine 1", "grant 3 engine 1"]),
        ],
    )


def test_a_lease_that_is_back_needs_no_count_any_more() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 600), ["count 1"]),
            (2, LeaseReturned(1), ["grant 2 engine 1"]),
            (3, Recounted(1, 50), []),
        ],
    )
