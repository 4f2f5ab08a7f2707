"""Which engine makes way for which start."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    B,
    C,
    D,
    LeaseBack,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    TicketGone,
)


def test_an_idle_engine_is_stopped_for_another_model_and_the_start_waits_for_its_exit() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseBack(1), []),
            (5, arrive(2, "b"), ["stop 1"]),
            (6, EngineExited(1), ["start b:only as 2"]),
            (9, ready(2), ["grant 2 engine 2"]),
        ],
    )


def test_a_busy_engine_drains_before_the_swap_and_gets_no_new_requests() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1, slots=4), ["grant 1 engine 1"]),
            (4, arrive(2, "a"), ["grant 2 engine 1"]),
            (5, arrive(3, "b"), ["drain 1"]),
            (6, arrive(4, "a"), []),
            (7, LeaseBack(1), []),
            (8, LeaseBack(1), ["stop 1"]),
            (9, EngineExited(1), ["start b:only as 2"]),
            (12, ready(2), ["grant 3 engine 2", "drain 2"]),
            (13, LeaseBack(2), ["stop 2"]),
            (14, EngineExited(2), ["start a:only as 3"]),
            (17, ready(3), ["grant 4 engine 3"]),
        ],
    )


def test_an_engine_that_an_earlier_request_waits_for_is_not_given_up() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (3, ready(1), ["grant 1 engine 1", "drain 1"]),
        ],
    )


def test_all_waiting_requests_that_fit_ride_along_with_one_start() -> None:
    play(
        scheduler(*GROWING, B),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, arrive(2, "a", LARGE), []),
            (1, arrive(3, "a", 10), []),
            (3, ready(1), ["grant 1 engine 1", "drain 1"]),
            (4, LeaseBack(1), ["stop 1"]),
            (5, EngineExited(1), ["start a:large as 2"]),
            (9, ready(2, slots=2, context=LARGE), ["grant 2 engine 2", "grant 3 engine 2"]),
        ],
    )


def test_growth_of_a_model_replaces_its_smaller_engine() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, arrive(2, "a", LARGE), ["drain 1"]),
            (5, LeaseBack(1), ["stop 1"]),
            (6, EngineExited(1), ["start a:large as 2"]),
            (9, ready(2, context=LARGE), ["grant 2 engine 2"]),
        ],
    )


def test_of_several_idle_engines_growth_gives_up_the_outgrown_one_though_just_used() -> None:
    play(
        scheduler(*GROWING, B, primary=2),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, LeaseBack(1), []),
            (3, arrive(2, "a", 10), ["start a:small as 2"]),
            (4, ready(2), ["grant 2 engine 2"]),
            (5, LeaseBack(2), []),
            (6, arrive(3, "a", LARGE), ["stop 2"]),
        ],
    )


def test_the_least_recently_used_idle_engine_is_given_up_first() -> None:
    play(
        scheduler(A, B, C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "b"), ["start b:only as 2"]),
            (2, ready(2), ["grant 2 engine 2"]),
            (3, LeaseBack(2), []),
            (4, LeaseBack(1), []),
            (5, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_an_idle_engine_is_given_up_before_a_busy_one() -> None:
    play(
        scheduler(A, B, C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "b"), ["start b:only as 2"]),
            (2, ready(2), ["grant 2 engine 2"]),
            (3, LeaseBack(2), []),
            (5, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_a_pinned_engine_is_given_up_last() -> None:
    play(
        scheduler(variant("a", pinned=True), B, C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, LeaseBack(1), []),
            (2, arrive(2, "b"), ["start b:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (4, LeaseBack(2), []),
            (5, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_two_waiting_starts_need_two_engines_given_up() -> None:
    play(
        scheduler(A, B, C, D, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, arrive(3, "c"), ["drain 1"]),
            (2, arrive(4, "d"), ["drain 2"]),
            (3, LeaseBack(2), ["stop 2"]),
            (4, EngineExited(2), ["start c:only as 3"]),
            (5, LeaseBack(1), ["stop 1"]),
            (6, EngineExited(1), ["start d:only as 4"]),
        ],
    )


def test_pools_do_not_touch_each_other() -> None:
    play(
        scheduler(A, variant("e", pool="secondary")),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "e"), ["start e:only as 2"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, ready(1), ["grant 1 engine 1"]),
        ],
    )


@pytest.mark.parametrize(
    ("cost_of_a", "cost_of_b", "stopped"), [(1.0, 60.0, 1), (60.0, 1.0, 2)], ids=["a", "b"]
)
def test_of_two_engines_idle_as_long_the_one_that_loads_faster_is_given_up(
    cost_of_a: float, cost_of_b: float, stopped: int
) -> None:
    """As it was measured, not as the configuration guesses it."""
    play(
        scheduler(variant("a", load_time_s=9), variant("b", load_time_s=10), C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (cost_of_a, ready(1), ["grant 1 engine 1"]),
            (cost_of_b, ready(2), ["grant 2 engine 2"]),
            (70, LeaseBack(1), []),
            (70, LeaseBack(2), []),
            (75, arrive(3, "c"), [f"stop {stopped}"]),
        ],
    )


def test_an_engine_that_costs_more_to_load_is_given_up_if_it_was_unused_for_longer() -> None:
    """30 s of load unused for 100 s count less than 10 s of load unused for 1 s."""
    play(
        scheduler(variant("a", load_time_s=30), variant("b"), C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (30, ready(1), ["grant 1 engine 1"]),
            (30, LeaseBack(1), []),
            (110, arrive(2, "b"), ["start b:only as 2"]),
            (120, ready(2), ["grant 2 engine 2"]),
            (129, LeaseBack(2), []),
            (130, arrive(3, "c"), ["stop 1"]),
        ],
    )


def test_a_busy_engine_is_given_up_before_an_idle_pinned_one() -> None:
    play(
        scheduler(variant("a", pinned=True), B, C, primary=2),
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (5, arrive(3, "c"), ["drain 2"]),
        ],
    )


def test_a_pinned_engine_is_given_up_if_no_other_would_do() -> None:
    play(
        scheduler(variant("a", pinned=True), B),
        [*loaded("a"), (1, LeaseBack(1), []), (5, arrive(2, "b"), ["stop 1"])],
    )


def test_an_engine_that_drains_already_is_the_one_that_goes_though_another_falls_idle() -> None:
    play(
        scheduler(A, B, C, primary=2),
        [
            *loaded("ab"),
            (1, arrive(3, "c"), ["drain 1"]),
            (2, LeaseBack(2), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start c:only as 3"]),
        ],
    )


def test_the_need_of_the_whole_queue_decides_which_variant_is_started() -> None:
    """Five wait and one of them needs the large variant: it is started once, for all."""
    subject = scheduler(*GROWING, B)
    play(
        subject,
        [
            *loaded("b"),
            (1, arrive(2, "a", 10), ["drain 1"]),
            (1, arrive(3, "a", 20), []),
            (1, arrive(4, "a", LARGE), []),
            (1, arrive(5, "a", 10), []),
            (1, batch(6, "a", 10), []),
            (2, LeaseBack(1), ["stop 1"]),
            (3, EngineExited(1), ["start a:large as 2"]),
            (
                4,
                ready(2, slots=5, context=LARGE),
                [f"grant {number} engine 2" for number in (2, 3, 4, 5, 6)],
            ),
        ],
    )


def test_the_variant_is_decided_when_it_starts_not_when_its_first_ticket_came() -> None:
    play(
        scheduler(*GROWING, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", LARGE), ["drain 1"]),
            (2, arrive(3, "a", 10), []),
            (3, TicketGone(2), []),
            (4, LeaseBack(1), ["stop 1"]),
            (5, EngineExited(1), ["start a:small as 2"]),
        ],
    )


def test_a_ticket_that_needs_more_than_what_loads_starts_a_second_engine_where_there_is_room() -> (
    None
):
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (1, arrive(2, "a", LARGE), ["start a:large as 2"]),
            (2, arrive(3, "a", 10), []),
            (3, ready(1, slots=2), ["grant 1 engine 1", "grant 3 engine 1"]),
            (4, ready(2, context=LARGE), ["grant 2 engine 2"]),
        ],
    )
