"""The scheduler as tables: what happens, and what it decides. No clock, no process, no trio."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    SMALL,
    A,
    B,
    C,
    LeaseBack,
    arrive,
    play,
    ready,
    scheduler,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    Reject,
    ShutDown,
    TicketGone,
    TimePassed,
)

# -- grants ---------------------------------------------------------------------------------------


def test_the_first_request_starts_an_engine_and_is_granted_when_it_is_ready() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseBack(1), []),
        ],
    )


def test_a_running_engine_with_a_free_slot_is_granted_at_once() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1, slots=2), ["grant 1 engine 1"]),
            (4, arrive(2, "a"), ["grant 2 engine 1"]),
        ],
    )


def test_requests_share_an_engine_up_to_its_slots_and_wait_in_order_beyond() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "a"), []),
            (0, arrive(3, "a"), []),
            (0, arrive(4, "a"), []),
            (3, ready(1, slots=2), ["grant 1 engine 1", "grant 2 engine 1"]),
            (4, LeaseBack(1), ["grant 3 engine 1"]),
            (5, LeaseBack(1), ["grant 4 engine 1"]),
        ],
    )


def test_the_smallest_variant_that_holds_the_need_is_started() -> None:
    play(scheduler(*GROWING), [(0, arrive(1, "a", SMALL), ["start a:small as 1"])])
    play(scheduler(*GROWING), [(0, arrive(1, "a", SMALL + 1), ["start a:large as 1"])])


def test_a_running_larger_variant_serves_a_smaller_need() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (3, ready(1, context=LARGE), ["grant 1 engine 1"]),
            (4, arrive(2, "a", 10), []),
            (5, LeaseBack(1), ["grant 2 engine 1"]),
        ],
    )


def test_the_smaller_of_two_running_variants_is_preferred() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a", LARGE), ["start a:large as 2"]),
            (3, ready(2, slots=4, context=LARGE), ["grant 2 engine 2"]),
            (4, LeaseBack(1), []),
            (5, arrive(3, "a", 10), ["grant 3 engine 1"]),
            (5, arrive(4, "a", 10), ["grant 4 engine 2"]),
        ],
    )


# -- contexts -------------------------------------------------------------------------------------


def test_an_engine_with_less_context_than_declared_makes_way_for_a_larger_variant() -> None:
    subject = scheduler(*GROWING)
    play(
        subject,
        [
            (0, arrive(1, "a", 800), ["start a:small as 1"]),
            (1, ready(1, context=500), ["stop 1"]),
            (2, EngineExited(1), ["start a:large as 2"]),
            (3, ready(2, context=LARGE), ["grant 1 engine 2"]),
        ],
    )
    assert subject.state.variants.contexts("a") == [500, LARGE]


def test_a_need_that_no_engine_holds_in_truth_is_rejected() -> None:
    (last,) = play(
        scheduler(A),
        [
            (0, arrive(1, "a", 800), ["start a:only as 1"]),
            (1, ready(1, context=500), ["reject 1 TOO_LARGE"]),
        ],
    )
    assert isinstance(last, Reject)
    assert "800" in last.message


def test_a_ticket_rides_along_only_with_a_start_that_in_truth_holds_it() -> None:
    """The small variant turned out to hold 500 tokens: 900 are none of its business any more."""
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", 100), ["start a:small as 1"]),
            (1, ready(1, context=500), ["grant 1 engine 1"]),
            (2, EngineExited(1), []),
            (3, arrive(2, "a", 900), ["start a:large as 2"]),
        ],
    )


@pytest.mark.parametrize(
    ("first", "second", "largest"), [(10, LARGE, LARGE), (LARGE, 10, LARGE)], ids=["up", "down"]
)
def test_the_running_engine_of_a_model_is_its_largest(
    first: int, second: int, largest: int
) -> None:
    subject = scheduler(*GROWING, primary=2)
    assert subject.state.running("a") is None
    for engine, need in ((1, first), (2, second)):
        subject.handle(arrive(engine, "a", need), 0)
        if engine in subject.state.engines:
            subject.handle(ready(engine, context=subject.state.engines[engine].context), 1)
    running = subject.state.running("a")
    assert running is not None
    assert running.context == largest


# -- shutdown -------------------------------------------------------------------------------------


def test_a_shutdown_rejects_tickets_stops_idle_engines_and_drains_busy_ones() -> None:
    play(
        scheduler(A, B, C, primary=3),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, LeaseBack(1), []),
            (3, arrive(3, "b"), []),
            (3, arrive(4, "c"), ["start c:only as 3"]),
            (
                4,
                ShutDown(),
                ["reject 3 SHUTTING_DOWN", "reject 4 SHUTTING_DOWN", "stop 1", "drain 2", "stop 3"],
            ),
            (5, arrive(5, "a"), ["reject 5 SHUTTING_DOWN"]),
            (5, ready(3), []),
            (6, LeaseBack(2), ["stop 2"]),
            (7, EngineExited(1), []),
            (7, EngineExited(2), []),
            (7, EngineExited(3), []),
            (8, ShutDown(), []),
        ],
    )


def test_a_second_shutdown_changes_nothing() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, ShutDown(), ["drain 1"]),
            (3, ShutDown(), []),
        ],
    )


def test_an_early_end_of_a_ticket_that_is_unknown_or_decided_is_no_error() -> None:
    play(scheduler(A), [(0, TicketGone(7), []), (0, TimePassed(), [])])


def test_its_state_can_be_printed() -> None:
    subject = scheduler(A)
    subject.handle(arrive(1, "a", 321), 0)
    assert "321" in repr(subject)
    assert "starting" in repr(subject).lower()
