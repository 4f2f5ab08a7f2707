"""What a waiting ticket may expect."""

from __future__ import annotations

import math

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    B,
    C,
    LeaseBack,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import EngineFailed
from trio_gateway.engine.scheduling.outlook import Outlook, outlook_of
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.ticket_queue import Ticket

# A load takes 10 s and a lease 10 s, as the tables say.


def outlook(subject: Scheduler, ticket: int, now: float) -> Outlook:
    return outlook_of(subject.state.tickets[ticket], subject.state, subject.window_s, now)


def test_the_first_ticket_waits_for_the_rest_of_the_load() -> None:
    subject = scheduler(A)
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"])])
    assert outlook(subject, 1, 4) == Outlook(position=1, wait_s=6, loading_s=4, load_s=10)


def test_how_long_a_load_still_takes_that_is_overdue_is_not_known() -> None:
    subject = scheduler(A)
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"])])
    assert outlook(subject, 1, 40) == Outlook(position=1, wait_s=None, loading_s=40, load_s=10)


@pytest.mark.parametrize(("parallel", "wait_s"), [(None, 30), (1, 30), (2, 20), (3, 10)])
def test_the_third_ticket_waits_for_leases_too_unless_there_are_slots_for_all(
    parallel: int | None, wait_s: float
) -> None:
    subject = scheduler(variant("a", parallel=parallel))
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"])])
    play(subject, [(0, arrive(number, "a"), []) for number in (2, 3)])
    assert outlook(subject, 3, 0) == Outlook(position=3, wait_s=wait_s, loading_s=0, load_s=10)


def test_at_a_ready_engine_a_ticket_waits_for_the_leases_before_it() -> None:
    subject = scheduler(A)
    play(subject, [*loaded("a", slots=2), (0, arrive(2, "a"), ["grant 2 engine 1"])])
    play(subject, [(1, arrive(number, "a"), []) for number in (3, 4, 5)])
    found = [outlook(subject, number, 1) for number in (3, 4, 5)]
    assert found == [Outlook(1, 9), Outlook(2, 9), Outlook(3, 19)]


def test_leases_are_expected_to_take_what_they_took() -> None:
    subject = scheduler(A, lease_s=None)
    play(subject, [*loaded("a"), (3, LeaseBack(1), []), (4, arrive(2, "a"), ["grant 2 engine 1"])])
    play(subject, [(4, arrive(3, "a"), [])])
    assert outlook(subject, 3, 4) == Outlook(1, 3)


def test_the_position_goes_by_turns_not_by_arrival() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    play(subject, [(1, arrive(n, "a", client="hoarder"), []) for n in range(2, 52)])
    play(subject, [(1, arrive(60, "a", client="person"), []), (1, batch(61, "a"), [])])
    assert [outlook(subject, n, 1).position for n in (2, 60, 3, 51, 61)] == [1, 2, 3, 51, 52]


def test_behind_a_busy_model_a_ticket_waits_for_its_leases_and_then_for_its_own_load() -> None:
    subject = scheduler(A, B, window_s=20)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), [])])
    assert outlook(subject, 2, 5) == Outlook(position=1, wait_s=5 + 10)
    assert outlook(subject, 2, 8) == Outlook(position=1, wait_s=2 + 10)
    assert outlook(subject, 2, 15) == Outlook(position=1, wait_s=None)


def test_others_that_wait_for_that_model_are_served_within_the_window_and_one_after_it() -> None:
    subject = scheduler(A, B, window_s=20)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), [])])
    play(subject, [(5, arrive(number, "a"), []) for number in range(3, 8)])
    assert outlook(subject, 2, 5) == Outlook(position=6, wait_s=20 + 10 + 10)
    assert outlook(subject, 2, 9) == Outlook(position=6, wait_s=16 + 10 + 10)


def test_once_the_other_engine_drains_the_window_is_over() -> None:
    subject = scheduler(A, B)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), ["drain 1"])])
    assert outlook(subject, 2, 5) == Outlook(position=1, wait_s=5 + 10)


def test_after_its_own_engine_s_turn_a_ticket_waits_for_that_to_drain_as_well() -> None:
    subject = scheduler(A, B)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), ["drain 1"]), (6, arrive(3, "a"), [])])
    # Its own load took no time when it was measured.
    assert outlook(subject, 3, 6) == Outlook(position=2, wait_s=4 + 20)
    assert outlook(subject, 3, 8) == Outlook(position=2, wait_s=2 + 20)


def test_where_the_window_never_ends_a_lease_is_what_can_be_expected() -> None:
    subject = scheduler(A, B, window_s=math.inf)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), [])])
    assert outlook(subject, 2, 5).wait_s == 5 + 10


def test_a_model_that_waits_already_has_its_turn_before() -> None:
    """Both wait for the engine of `a`; then comes the turn of `b`: its load, and its lease."""
    subject = scheduler(A, B, C, window_s=20)
    play(subject, [*loaded("a"), (5, arrive(2, "b"), []), (5, arrive(3, "c"), [])])
    assert outlook(subject, 2, 5) == Outlook(position=1, wait_s=5 + 10)
    assert outlook(subject, 3, 5) == Outlook(position=2, wait_s=5 + 20 + 10)


def test_batch_tickets_of_another_model_are_not_ahead_of_an_interactive_one() -> None:
    subject = scheduler(A, B, C, window_s=20)
    play(subject, [*loaded("a"), (5, batch(2, "b"), []), (5, arrive(3, "c"), [])])
    assert outlook(subject, 3, 5) == Outlook(position=1, wait_s=5 + 10)


def test_the_other_pool_is_not_in_the_way() -> None:
    subject = scheduler(A, B, variant("c", pool="secondary"))
    play(subject, [(0, arrive(1, "c"), ["start c:only as 1"])])
    play(subject, [(0, arrive(2, "a"), ["start a:only as 2"]), (0, arrive(3, "b"), [])])
    assert outlook(subject, 2, 0).wait_s == 10


def test_a_need_above_the_running_engine_waits_for_the_larger_variants_load() -> None:
    subject = scheduler(*GROWING, window_s=20)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "a", LARGE), []),
        ],
    )
    assert outlook(subject, 2, 1).loading_s is None
    assert outlook(subject, 2, 1).wait_s == 9 + 10  # after the answer of the smaller engine
    play(subject, [(4, LeaseBack(1), ["stop 1"])])
    assert outlook(subject, 2, 4).wait_s == 10


def test_for_a_ticket_that_has_not_joined_the_line_all_that_wait_are_ahead() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    play(subject, [(1, arrive(number, "a"), []) for number in (2, 3)])
    newcomer = Ticket(9, "a", 100, "z", Priority.INTERACTIVE, 1.0, A.context)
    assert outlook_of(newcomer, subject.state, 0.0, 1) == Outlook(position=3, wait_s=29)


def test_a_newcomer_that_has_a_slot_waits_for_nothing_whoever_waits_for_a_larger_engine() -> None:
    subject = scheduler(*GROWING, window_s=20)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1, slots=2), ["grant 1 engine 1"]),
            (1, arrive(2, "a", LARGE), []),
        ],
    )
    newcomer = Ticket(9, "a", 100, "z", Priority.INTERACTIVE, 1.0, A.context)
    assert outlook_of(newcomer, subject.state, 20.0, 1) == Outlook(position=1, wait_s=0)


def test_where_slots_share_tokens_as_many_go_at_a_time_as_have_enough() -> None:
    """Three at a time, though the engine has four slots."""
    subject = scheduler(A)
    engine = ready(1, slots=4, shared_tokens=1000)
    play(subject, [(0, arrive(1, "a", 900), ["start a:only as 1"])])
    play(subject, [(0, engine, ["grant 1 engine 1"])])
    play(subject, [(1, arrive(number, "a", 300), []) for number in (2, 3, 4, 5)])
    found = [outlook(subject, number, 1) for number in (2, 3, 4, 5)]
    assert found == [Outlook(1, 9), Outlook(2, 9), Outlook(3, 9), Outlook(4, 19)]


def test_a_load_with_room_to_grow_takes_what_the_larger_variant_takes() -> None:
    small, large = variant("a:small", load_time_s=3), variant("a:large", LARGE, load_time_s=7)
    subject = scheduler(B, small, large)
    play(subject, [*loaded("b"), (1, arrive(2, "a"), ["drain 1"])])
    assert outlook(subject, 2, 1).wait_s == 9 + 3
    play(subject, [(1, arrive(3, "a", 100, start_need=LARGE), [])])
    assert outlook(subject, 2, 1).wait_s == 9 + 7


def test_a_ticket_that_waits_for_the_end_of_a_pause_is_told_so_and_is_nobodys_turn() -> None:
    subject = scheduler(A, B)
    play(
        subject,
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0, arrive(2, "a"), ["start a:only as 2"]),
            (0, ready(2), ["grant 2 engine 2"]),
            (0.25, arrive(3, "b"), []),
            (0.25, arrive(4, "a"), []),
        ],
    )
    paused = outlook(subject, 3, 0.5)
    assert paused.pause is not None
    assert str(paused.pause) == "b:only failed once; the next start is in 0.5 s"
    assert outlook(subject, 4, 0.5).pause is None
    newcomer = Ticket(9, "c", 10, "", Priority.INTERACTIVE, 0.5, size=1000, start_size=1000)
    subject = scheduler(A, B, C, primary=2)
    play(
        subject,
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0.25, arrive(3, "b"), []),
        ],
    )
    assert outlook_of(newcomer, subject.state, subject.window_s, 0.5) == Outlook(1, 10)
