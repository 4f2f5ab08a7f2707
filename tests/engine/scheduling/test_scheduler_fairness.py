"""How long a busy engine goes on when another model waits for its room."""

from __future__ import annotations

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    B,
    LeaseBack,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    TicketGone,
    TimePassed,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler

WINDOW_S = 10.0
# What the swaps below take to load, as the configuration guesses it. Short, so that the overtime of
# twice that is over before the window is, except where a test is about it.
QUICK_A, QUICK_B, QUICK_C = (variant(model, load_time_s=0) for model in "abc")


def waiting_for_b() -> Scheduler:
    """An engine of `a` with two slots, one of them free, ready at 0; `b` waits since 1."""
    subject = scheduler(QUICK_A, QUICK_B, QUICK_C, window_s=WINDOW_S)
    play(subject, [*loaded("a", slots=2), (1, arrive(2, "b"), [])])
    return subject


def test_a_busy_engine_goes_on_to_be_granted_until_the_window_is_over() -> None:
    subject = waiting_for_b()
    assert subject.next_deadline() == 11
    play(
        subject,
        [
            (2, arrive(3, "a"), ["grant 3 engine 1"]),
            (3, LeaseBack(1), []),
            (10.9, arrive(4, "a"), ["grant 4 engine 1"]),
            (11, TimePassed(), ["drain 1"]),
            (11, arrive(5, "a"), []),
            (12, LeaseBack(1), []),
            (13, LeaseBack(1), ["stop 1"]),
            (14, EngineExited(1), ["start b:only as 2"]),
            (15, ready(2), ["grant 2 engine 2"]),
        ],
    )


def test_at_the_end_of_the_window_newcomers_wait_whether_the_timer_has_fired_or_not() -> None:
    play(waiting_for_b(), [(11, arrive(3, "a"), ["drain 1"])])


def test_an_engine_that_falls_idle_in_the_window_makes_way_at_once() -> None:
    play(
        waiting_for_b(),
        [(2, LeaseBack(1), ["stop 1"]), (3, EngineExited(1), ["start b:only as 2"])],
    )


def test_an_engine_without_leases_makes_way_at_once() -> None:
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [*loaded("a"), (1, LeaseBack(1), []), (2, arrive(2, "b"), ["stop 1"])],
    )


def test_the_window_counts_from_the_engines_start_if_that_was_later() -> None:
    subject = scheduler(QUICK_A, QUICK_B, window_s=WINDOW_S)
    play(
        subject,
        [
            (0, arrive(1, "a", client="x"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
        ],
    )
    assert subject.next_deadline() == 600, "nothing to do before the engine is ready"
    play(subject, [(2, ready(1, slots=2), ["grant 1 engine 1"])])
    assert subject.next_deadline() == 12
    play(
        subject,
        [(11.9, arrive(3, "a"), ["grant 3 engine 1"]), (12, TimePassed(), ["drain 1"])],
    )


def test_the_timer_fires_once_and_not_again() -> None:
    subject = waiting_for_b()
    play(subject, [(11, TimePassed(), ["drain 1"]), (11, TimePassed(), [])])
    assert subject.next_deadline() == 601, "the queue timeout of ticket 2"


def test_a_second_demand_for_the_same_room_does_not_open_the_window_again() -> None:
    play(
        waiting_for_b(),
        [(9, arrive(3, "c"), []), (11, TimePassed(), ["drain 1"])],
    )


def test_each_waiting_model_gets_its_turn_before_one_that_had_its_own() -> None:
    play(
        waiting_for_b(),
        [
            (5, arrive(3, "c"), []),
            (11, TimePassed(), ["drain 1"]),
            (12, arrive(4, "a"), []),
            (13, LeaseBack(1), ["stop 1"]),
            (14, EngineExited(1), ["start b:only as 2"]),
            (15, ready(2), ["grant 2 engine 2"]),
            (16, LeaseBack(2), ["stop 2"]),
            (17, EngineExited(2), ["start c:only as 3"]),
            (18, ready(3), ["grant 3 engine 3"]),
            (19, LeaseBack(3), ["stop 3"]),
            (20, EngineExited(3), ["start a:only as 4"]),
        ],
    )


def test_a_ticket_from_before_its_models_turn_ended_has_no_precedence_over_who_waits() -> None:
    """Ticket 3 came first of all, but its model has just had a turn."""
    play(
        scheduler(QUICK_A, QUICK_B, QUICK_C, window_s=WINDOW_S),
        [
            *loaded("a"),
            (1, arrive(3, "a"), []),
            (2, arrive(4, "b"), []),
            (3, arrive(5, "c"), []),
            (12, TimePassed(), ["drain 1"]),
            (13, LeaseBack(1), ["stop 1"]),
            (14, EngineExited(1), ["start b:only as 2"]),
            (15, ready(2), ["grant 4 engine 2"]),
            (16, LeaseBack(2), ["stop 2"]),
            (17, EngineExited(2), ["start c:only as 3"]),
        ],
    )


# -- a drain called off -------------------------------------------------------------------------


def test_a_drain_is_called_off_when_the_ticket_that_it_was_for_has_left() -> None:
    play(
        waiting_for_b(),
        [
            (11, TimePassed(), ["drain 1"]),
            (12, arrive(3, "a"), []),
            (13, TicketGone(2), ["resume 1", "grant 3 engine 1"]),
        ],
    )


def test_a_drain_goes_on_while_another_ticket_waits_for_the_room_as_long() -> None:
    play(
        waiting_for_b(),
        [
            (1, arrive(3, "b"), []),
            (11, TimePassed(), ["drain 1"]),
            (12, TicketGone(2), []),
        ],
    )


def test_a_drain_is_called_off_while_the_next_one_in_line_is_still_in_its_window() -> None:
    subject = waiting_for_b()
    play(
        subject,
        [
            (6, arrive(3, "c"), []),
            (11, TimePassed(), ["drain 1"]),
            (12, TicketGone(2), ["resume 1"]),
        ],
    )
    assert subject.next_deadline() == 16
    play(subject, [(16, TimePassed(), ["drain 1"])])


def test_an_engine_that_stops_already_is_not_called_back() -> None:
    play(
        waiting_for_b(),
        [
            (11, TimePassed(), ["drain 1"]),
            (12, LeaseBack(1), ["stop 1"]),
            (12, arrive(3, "a"), []),
            (13, TicketGone(2), []),
            (14, EngineExited(1), ["start a:only as 2"]),
        ],
    )


def test_growing_does_not_call_off_the_drain_that_it_asked_for() -> None:
    """Ticket 2 fits the small engine, but would wait there for as long as newcomers keep it."""
    small, large = variant("a:small", load_time_s=0), variant("a:large", LARGE, load_time_s=0)
    play(
        scheduler(small, large, window_s=WINDOW_S),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "a"), []),
            (2, arrive(3, "a", LARGE), []),
            (12, TimePassed(), ["drain 1"]),
            (13, arrive(4, "a"), []),
            (14, LeaseBack(1), ["stop 1"]),
            (15, EngineExited(1), ["start a:large as 2"]),
            (16, ready(2, slots=3, context=LARGE), [f"grant {n} engine 2" for n in (2, 3, 4)]),
        ],
    )


# -- overtime -----------------------------------------------------------------------------------


def test_after_the_window_older_tickets_are_served_for_twice_both_loads_and_newcomers_are_not() -> (
    None
):
    """Loads of 1 and 7 s: 16 s from when the engine got ready."""
    subject = scheduler(variant("a"), variant("b", load_time_s=7), window_s=5)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "a"), []),
            (1, arrive(3, "a"), []),
            (2, arrive(4, "b"), []),
            (3, arrive(5, "a"), []),
            (7, TimePassed(), []),
            (8, LeaseBack(1), ["grant 2 engine 1"]),
        ],
    )
    assert subject.next_deadline() == 17
    play(subject, [(17, TimePassed(), ["drain 1"]), (18, LeaseBack(1), ["stop 1"])])


def test_overtime_is_over_when_the_last_older_ticket_is_served() -> None:
    play(
        scheduler(variant("a"), variant("b", load_time_s=7), window_s=5),
        [
            *loaded("a"),
            (1, arrive(2, "a"), []),
            (2, arrive(3, "b"), []),
            (3, arrive(4, "a"), []),
            (7, TimePassed(), []),
            (8, LeaseBack(1), ["grant 2 engine 1", "drain 1"]),
            (9, LeaseBack(1), ["stop 1"]),
        ],
    )


def test_who_waited_before_is_served_in_overtime_in_the_order_of_arrival() -> None:
    play(
        scheduler(variant("a"), variant("b", load_time_s=60), window_s=1),
        [
            *loaded("a"),
            (1, arrive(2, "a", client="x"), []),
            (2, arrive(3, "a", client="x"), []),
            (3, arrive(4, "a", client="y"), []),
            (4, arrive(5, "b"), []),
            (5, TimePassed(), []),
            (6, LeaseBack(1), ["grant 2 engine 1"]),
            (7, LeaseBack(1), ["grant 3 engine 1"]),
            (8, LeaseBack(1), ["grant 4 engine 1", "drain 1"]),
            (9, LeaseBack(1), ["stop 1"]),
        ],
    )


def test_an_engine_that_ran_long_enough_has_no_overtime() -> None:
    play(
        scheduler(variant("a"), variant("b"), window_s=5),
        [
            *loaded("a"),
            (100, arrive(2, "a"), []),
            (101, arrive(3, "b"), []),
            (106, TimePassed(), ["drain 1"]),
        ],
    )


# -- what just got ready ------------------------------------------------------------------------


def test_an_engine_that_gets_ready_serves_as_many_as_it_has_slots_whoever_waits_by_then() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (2, arrive(3, "a"), []),
            (2, arrive(4, "a"), []),
            (3, ready(1, slots=2), ["grant 1 engine 1", "grant 3 engine 1", "drain 1"]),
        ],
    )


def test_the_ticket_that_decided_on_a_start_is_served_first_though_it_is_not_its_clients_turn() -> (
    None
):
    play(
        scheduler(*GROWING, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", client="x"), ["drain 1"]),
            (1, arrive(3, "a", client="x"), []),
            (1, arrive(4, "a", LARGE, client="y"), []),
            (2, TicketGone(2), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:large as 2"]),
            (5, ready(2, context=LARGE), ["grant 3 engine 2"]),
        ],
    )


def test_an_engine_that_is_called_back_makes_way_for_the_next_in_line_in_the_same_event() -> None:
    """Ticket 2 gives up, so the drain for it is called off, as 3 came before 4. But 4 has waited
    for longer than the window by then: nothing else may happen for a long time."""
    play(
        scheduler(QUICK_A, QUICK_B, queue_timeout_s=30, window_s=WINDOW_S),
        [
            *loaded("a"),
            (0, arrive(2, "b"), []),
            (10, TimePassed(), ["drain 1"]),
            (10, arrive(3, "a"), []),
            (10, arrive(4, "b"), []),
            (30, TimePassed(), ["reject 2 QUEUE_TIMEOUT", "resume 1", "drain 1"]),
            (31, LeaseBack(1), ["stop 1"]),
            (32, EngineExited(1), ["start b:only as 2"]),
        ],
    )
