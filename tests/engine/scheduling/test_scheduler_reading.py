"""Requests for which nothing is generated are limited by the time they take, not their number."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.scheduler_tables import A, LeaseBack, arrive, loaded, play, ready, scheduler
from trio_gateway.engine.scheduling.events import Grant, LeaseReturned, Reject, TicketArrived
from trio_gateway.engine.scheduling.scheduler import Scheduler

PIECE = 1000  # bytes


def read(
    ticket: int, model: str = "a", size: int = PIECE, *, client: str = "page"
) -> TicketArrived:
    return TicketArrived(ticket, model, 100, client, read_bytes=size)


def measured(seconds: float, *, queue_limit: int = 2, timeout_s: float = 600.0) -> Scheduler:
    """An engine with one slot that took so long for a piece, and works on another since then."""
    subject = scheduler(A, queue_limit=queue_limit, queue_timeout_s=timeout_s)
    play(
        subject,
        [
            (0, read(1), ["start a:only as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (seconds, LeaseBack(1), []),
            (seconds, read(2), ["grant 2 engine 1"]),
        ],
    )
    return subject


def granted(subject: Scheduler, first: int, count: int) -> Sequence[int]:
    """Who gets the slot of engine 1, one after the other."""
    order, ticket = [], first
    for now in range(count):
        (action,) = subject.handle(LeaseReturned(ticket), 100 + now)
        assert isinstance(action, Grant)
        ticket = action.ticket
        order.append(ticket)
    return order


def test_hundreds_wait_whatever_the_queue_limit_and_are_served_in_their_order() -> None:
    subject = measured(0.5)
    play(subject, [(1, read(number), []) for number in range(3, 333)])
    assert granted(subject, 2, 330) == [*range(3, 333)]


def test_they_are_not_counted_against_those_that_generate() -> None:
    subject = measured(0.5)
    play(subject, [(1, read(number), []) for number in range(3, 100)])
    play(subject, [(1, arrive(100, "a"), []), (1, arrive(101, "a"), [])])
    play(subject, [(1, arrive(102, "a"), ["reject 102 QUEUE_FULL"]), (1, read(103), [])])


def test_more_than_can_be_read_within_the_queue_timeout_is_rejected_until_there_is_room() -> None:
    subject = measured(2, timeout_s=10)
    play(subject, [(2, read(number), []) for number in range(3, 8)])
    (last,) = play(subject, [(2, read(8), ["reject 8 QUEUE_FULL"])])
    assert isinstance(last, Reject)
    assert last.retry_after_s == 2
    assert last.message == (
        "what waits for a before this request would take 12 s to read with it, and none waits for "
        "longer than 10 s (queue_timeout); try again later"
    )
    play(subject, [(3, LeaseReturned(2), ["grant 3 engine 1"])])
    play(subject, [(3, read(9, size=PIECE // 2), [])])


def test_slots_share_the_work() -> None:
    subject = scheduler(A, queue_timeout_s=10)
    play(
        subject,
        [
            (0, read(1), ["start a:only as 1"]),
            (0, ready(1, slots=2), ["grant 1 engine 1"]),
            (2, LeaseBack(1), []),
            (2, read(2), ["grant 2 engine 1"]),
            (2, read(3), ["grant 3 engine 1"]),
        ],
    )
    play(subject, [(2, read(number), []) for number in range(4, 14)])
    play(subject, [(2, read(14), ["reject 14 QUEUE_FULL"])])


def test_a_client_that_fills_the_line_leaves_room_for_the_others() -> None:
    subject = measured(2, timeout_s=10)
    play(subject, [(2, read(number), []) for number in range(3, 8)])
    play(subject, [(2, read(8), ["reject 8 QUEUE_FULL"])])
    play(subject, [(2, read(9, client="b"), []), (2, read(10, client="b"), [])])
    play(subject, [(2, read(11, client="b"), ["reject 11 QUEUE_FULL"])])  # 3 of each are 12 s
    play(subject, [(2, read(12, client="c"), [])])
    assert {9, 12} <= {*granted(subject, 2, 4)}


def test_before_anything_was_measured_none_is_rejected() -> None:
    subject = scheduler(A, queue_limit=2)
    play(subject, [(0, read(1), ["start a:only as 1"])])
    play(subject, [(0, read(number, size=10**6), []) for number in range(2, 1000)])


def test_a_chat_of_the_same_client_waits_for_one_of_them_not_for_all() -> None:
    subject = measured(0.5)
    play(subject, [(1, read(number), []) for number in range(3, 60)])
    play(subject, [(2, arrive(60, "a", client="page"), [])])
    assert 60 in granted(subject, 2, 2)


def test_clients_take_turns_with_them() -> None:
    subject = measured(0.5)
    play(subject, [(1, read(number), []) for number in range(3, 60)])
    play(subject, [(2, read(60, client="another"), []), (2, read(61, client="another"), [])])
    assert {60, 61} <= {*granted(subject, 2, 4)}


def test_what_they_took_says_nothing_about_answers() -> None:
    subject = measured(0.5)
    assert subject.state.forecast.lease_s("a") == 10
    play(scheduler(A), loaded("a"))
