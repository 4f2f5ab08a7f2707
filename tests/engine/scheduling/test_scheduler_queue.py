"""Tickets that end before they are granted, and engines that nobody waits for."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    A,
    B,
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
    EngineFailed,
    Reject,
    TicketGone,
    TimePassed,
)

# -- the queue ------------------------------------------------------------------------------------


def test_a_request_beyond_the_queue_limit_is_rejected_and_told_what_it_would_have_waited() -> None:
    """10 s for the load as the configuration guesses it, and two leases ahead of 10 s each."""
    (last,) = play(
        scheduler(A, queue_limit=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "a"), []),
            (0, arrive(3, "a"), ["reject 3 QUEUE_FULL"]),
        ],
    )
    assert isinstance(last, Reject)
    assert last.retry_after_s == 30
    assert last.message == "2 requests are already waiting (queue_limit); try again later"


def test_the_retry_after_of_a_full_queue_goes_by_what_loads_and_leases_took() -> None:
    (last,) = play(
        scheduler(A, queue_limit=1, lease_s=4),
        [
            *loaded("a"),
            (4, LeaseBack(1), []),
            (5, arrive(2, "a"), ["grant 2 engine 1"]),
            (5, arrive(3, "a"), []),
            (5, arrive(4, "a"), ["reject 4 QUEUE_FULL"]),
        ],
    )
    assert isinstance(last, Reject)
    assert last.retry_after_s == 8


def test_a_batch_request_beyond_the_queue_limit_is_rejected_like_any_other() -> None:
    play(
        scheduler(A, queue_limit=1),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, batch(2, "a"), ["reject 2 QUEUE_FULL"]),
        ],
    )


def test_of_several_tickets_each_is_rejected_at_its_own_queue_timeout() -> None:
    subject = scheduler(A, queue_timeout_s=60)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, batch(2, "a"), []),
            (2, arrive(3, "a"), []),
            (60, TimePassed(), ["reject 1 QUEUE_TIMEOUT"]),
        ],
    )
    assert subject.next_deadline() == 61
    (last,) = play(subject, [(61, TimePassed(), ["reject 2 QUEUE_TIMEOUT"])])
    assert isinstance(last, Reject)
    assert last.message == "no engine was free within 60 s (queue_timeout)"
    assert subject.next_deadline() == 62


def test_a_full_queue_does_not_reject_a_request_that_need_not_wait() -> None:
    play(
        scheduler(A, variant("e", pool="secondary"), queue_limit=1),
        [
            (0, arrive(1, "e"), ["start e:only as 1"]),
            (1, ready(1, slots=2), ["grant 1 engine 1"]),
            (2, arrive(2, "a"), ["start a:only as 2"]),
            (3, arrive(3, "e"), ["grant 3 engine 1"]),
            (3, arrive(4, "e"), ["reject 4 QUEUE_FULL"]),
        ],
    )


def test_a_ticket_that_waited_the_queue_timeout_is_rejected() -> None:
    subject = scheduler(A, queue_timeout_s=60)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (5, arrive(2, "a"), []),
            (10, ready(1), ["grant 1 engine 1"]),
            (64.9, TimePassed(), []),
        ],
    )
    assert subject.next_deadline() == 65
    play(subject, [(65, TimePassed(), ["reject 2 QUEUE_TIMEOUT"])])


def test_a_ticket_whose_client_has_gone_is_never_granted() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "a"), []),
            (1, TicketGone(1), []),
            (3, ready(1), ["grant 2 engine 1"]),
        ],
    )


def test_a_start_that_nobody_waits_for_is_given_up_for_another_model() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (2, TicketGone(1), ["stop 1"]),
            (3, EngineExited(1), ["start b:only as 2"]),
        ],
    )


@pytest.mark.parametrize(
    ("left_at", "decided"), [(19.9, ["stop 1"]), (20, [])], ids=["first half", "second half"]
)
def test_a_load_that_nobody_waits_for_is_given_up_in_its_first_half_else_finished(
    left_at: float, decided: list[str]
) -> None:
    """Of the 40 s that the configuration guesses."""
    play(
        scheduler(variant("a", load_time_s=40)),
        [(0, arrive(1, "a"), ["start a:only as 1"]), (left_at, TicketGone(1), decided)],
    )


@pytest.mark.parametrize(
    ("left_at", "decided"), [(102.9, ["stop 2"]), (103, [])], ids=["first half", "second half"]
)
def test_what_half_a_load_is_goes_by_what_was_measured(left_at: float, decided: list[str]) -> None:
    play(
        scheduler(variant("a", load_time_s=40)),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (6, ready(1), ["grant 1 engine 1"]),
            (50, EngineExited(1, "killed"), []),
            (100, arrive(2, "a"), ["start a:only as 2"]),
            (left_at, TicketGone(2), decided),
        ],
    )


def test_a_load_that_is_finished_for_nobody_serves_whoever_comes_then() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (6, TicketGone(1), []),
            (8, ready(1), []),
            (9, arrive(2, "a"), ["grant 2 engine 1"]),
        ],
    )


def test_a_load_in_its_second_half_that_nobody_waits_for_still_makes_way_for_another_model() -> (
    None
):
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (6, TicketGone(1), []),
            (7, arrive(2, "b"), ["stop 1"]),
        ],
    )


def test_a_load_that_another_ticket_waits_for_is_not_given_up() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, batch(2, "a"), []),
            (1, TicketGone(1), []),
            (3, ready(1), ["grant 2 engine 1"]),
        ],
    )


def test_an_engine_that_gets_ready_while_its_start_is_given_up_is_granted_to_nobody() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (2, TicketGone(1), ["stop 1"]),
            (2, arrive(3, "a"), []),
            (2, ready(1), []),
            (3, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_an_engine_that_fails_while_its_start_is_given_up_rejects_nobody() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (2, TicketGone(1), ["stop 1"]),
            (2, arrive(3, "a"), []),
            (3, EngineFailed(1, "killed"), ["start b:only as 2"]),
        ],
    )


# -- idle engines ---------------------------------------------------------------------------------


def test_an_engine_unused_for_its_idle_timeout_is_stopped() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseBack(1), []),
            (303.9, TimePassed(), []),
        ],
    )
    assert subject.next_deadline() == 304
    play(subject, [(304, TimePassed(), ["stop 1"]), (305, EngineExited(1), [])])
    assert subject.next_deadline() is None


def test_an_engine_is_never_idle_while_it_has_leases() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (10_000, TimePassed(), []),
        ],
    )
    assert subject.next_deadline() is None


def test_a_request_that_comes_while_an_idle_engine_stops_gets_a_new_one() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseBack(1), []),
            (304, TimePassed(), ["stop 1"]),
            (304, arrive(2, "a"), []),
            (305, EngineExited(1), ["start a:only as 2"]),
        ],
    )
