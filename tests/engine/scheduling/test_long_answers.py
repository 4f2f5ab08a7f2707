"""`longest_answer`: past it an answer ends, but only while others wait for its place."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    LARGE,
    SMALL,
    LeaseBack,
    Step,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import TicketArrived, TicketGone, TimePassed
from trio_gateway.engine.scheduling.progress import AnswerProgress

LIMIT_S = 60.0
A, B = variant("a", longest_answer_s=LIMIT_S), variant("b")
BATCH = Priority.BATCH


def asks(
    ticket: int, model: str = "a", need: int = 100, priority: Priority = Priority.INTERACTIVE
) -> TicketArrived:
    progress = AnswerProgress(50, 50, is_seen=True)
    return TicketArrived(ticket, model, need, "", priority, progress=progress)


def one_runs() -> list[Step]:
    return [(0, asks(1), ["start a:only as 1"]), (0, ready(1), ["grant 1 engine 1"])]


def test_while_nobody_waits_an_answer_goes_on() -> None:
    subject = scheduler(A)
    play(subject, [*one_runs(), (100, TimePassed(), [])])
    assert subject.next_deadline() is None


def test_it_ends_at_its_limit_if_others_wait_for_a_slot() -> None:
    subject = scheduler(A)
    play(subject, [*one_runs(), (10, asks(2), [])])
    assert subject.next_deadline() == LIMIT_S
    play(subject, [(60, TimePassed(), ["end 1"]), (61, LeaseBack(1), ["grant 2 engine 1"])])


def test_one_that_is_past_its_limit_ends_when_somebody_comes() -> None:
    play(scheduler(A), [*one_runs(), (100, asks(2), ["end 1"])])


def test_it_is_told_once() -> None:
    subject = scheduler(A)
    play(
        subject,
        [*one_runs(), (100, asks(2), ["end 1"]), (101, asks(3), []), (102, TimePassed(), [])],
    )


def test_who_waited_and_left_ends_nothing() -> None:
    subject = scheduler(A)
    play(subject, [*one_runs(), (10, asks(2), []), (20, TicketGone(2), []), (60, TimePassed(), [])])


def test_it_ends_for_another_models_engine_in_its_pool() -> None:
    play(
        scheduler(A, B),
        [*one_runs(), (10, asks(2, "b"), ["drain 1"]), (60, TimePassed(), ["end 1"])],
    )


def test_it_ends_for_a_larger_variant_of_its_own_model() -> None:
    small = variant("a:small", SMALL, longest_answer_s=LIMIT_S)
    subject = scheduler(small, variant("a:large", LARGE))
    play(
        subject,
        [
            (0, asks(1), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (10, asks(2, need=LARGE), ["drain 1"]),
            (60, TimePassed(), ["end 1"]),
        ],
    )


def test_it_does_not_end_for_another_pool_or_where_there_is_room() -> None:
    elsewhere = variant("b", pool="secondary")
    subject = scheduler(A, elsewhere, variant("c", pool="secondary"), variant("d"), primary=2)
    play(
        subject,
        [
            *one_runs(),
            (1, asks(2, "b"), ["start b:only as 2"]),
            (2, asks(3, "c"), []),
            (3, asks(4, "d"), ["start d:only as 3"]),
            (60, TimePassed(), []),
        ],
    )


def test_the_other_engine_makes_way_where_that_is_enough() -> None:
    """`b` is idle: only its room is needed, also while it still stops."""
    subject = scheduler(A, B, variant("c"), primary=2)
    play(
        subject,
        [
            *one_runs(),
            (0, asks(2, "b"), ["start b:only as 2"]),
            (0, ready(2), ["grant 2 engine 2"]),
            (50, LeaseBack(2), []),
            (70, asks(3, "c"), ["stop 2"]),
            (71, TimePassed(), []),
        ],
    )


@pytest.mark.parametrize(("running", "ends"), [(Priority.INTERACTIVE, []), (BATCH, ["end 1"])])
def test_a_batch_request_ends_answers_of_batch_requests_only(
    running: Priority, ends: list[str]
) -> None:
    play(
        scheduler(A, window_s=100),
        [
            (0, asks(1, priority=running), ["start a:only as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (10, asks(2, priority=BATCH), []),
            (60, TimePassed(), ends),
        ],
    )


def test_without_a_limit_nothing_ends() -> None:
    play(
        scheduler(B),
        [
            (0, asks(1, "b"), ["start b:only as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (10, asks(2, "b"), []),
            (500, TimePassed(), []),
        ],
    )
