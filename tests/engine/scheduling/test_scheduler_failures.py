"""Starts that fail and engines that crash."""

from __future__ import annotations

import pytest

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
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    LeaseReturned,
    Reject,
    TicketGone,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler


def failed_once() -> Scheduler:
    """The first start of `a` came to nothing at time 0, so the next one waits until 1."""
    subject = scheduler(A, B)
    failure = EngineFailed(1, "boom")
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"])])
    play(subject, [(0, failure, ["reject 1 START_FAILED"])])
    return subject


def test_a_start_that_fails_rejects_every_ticket_that_waited_for_it_with_the_reason() -> None:
    actions = play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), []),
            (0, arrive(3, "a"), []),
            (
                3,
                EngineFailed(1, "no such file"),
                ["reject 1 START_FAILED", "reject 3 START_FAILED", "start b:only as 2"],
            ),
        ],
    )
    assert [a.message for a in actions if isinstance(a, Reject)] == ["no such file"] * 2


def test_a_start_that_takes_too_long_is_told_from_one_that_fails() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (120, EngineFailed(1, "not ready", timed_out=True), ["reject 1 START_TIMEOUT"]),
        ],
    )


def test_a_failed_start_does_not_reject_a_ticket_that_another_engine_will_serve() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a", LARGE), ["start a:large as 2"]),
            (3, arrive(3, "a", 10), []),
            (4, EngineFailed(2, "out of memory"), ["reject 2 START_FAILED"]),
            (5, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )


def test_after_failed_starts_the_next_waits_1_2_4_up_to_30_seconds() -> None:
    subject, now = scheduler(A), 0.0
    for attempt, pause in enumerate([1, 2, 4, 8, 16, 30, 30], 1):
        first, second, third = attempt * 3, attempt * 3 + 1, attempt * 3 + 2
        (refused,) = play(
            subject,
            [
                (now, arrive(first, "a"), [f"start a:only as {attempt}"]),
                (now, EngineFailed(attempt, "boom"), [f"reject {first} START_FAILED"]),
                (now, arrive(second, "a"), [f"reject {second} BACK_OFF"]),
            ],
        )
        assert isinstance(refused, Reject)
        assert refused.retry_after_s == pause
        assert "boom" in refused.message
        play(subject, [(now + pause - 0.1, arrive(third, "a"), [f"reject {third} BACK_OFF"])])
        now += pause


def test_the_back_off_begins_anew_after_an_engine_that_was_good_until_it_was_stopped() -> None:
    subject = failed_once()
    play(
        subject,
        [
            (1, arrive(2, "a"), ["start a:only as 2"]),
            (2, ready(2), ["grant 2 engine 2"]),
            (3, LeaseBack(2), []),
            (4, arrive(3, "b"), ["stop 2"]),
            (5, EngineExited(2), ["start b:only as 3"]),
            (5, EngineFailed(3, "boom"), ["reject 3 START_FAILED"]),
            (6, arrive(4, "a"), ["start a:only as 4"]),
            (7, EngineFailed(4, "boom"), ["reject 4 START_FAILED"]),
            (8, arrive(5, "a"), ["start a:only as 5"]),
        ],
    )


def test_a_start_that_was_given_up_says_nothing_for_the_variant() -> None:
    play(
        failed_once(),
        [
            (1, arrive(2, "a"), ["start a:only as 2"]),
            (2, TicketGone(2), ["stop 2"]),
            (3, EngineExited(2), []),
            (3, arrive(3, "a"), ["start a:only as 3"]),
            (4, EngineFailed(3, "boom"), ["reject 3 START_FAILED"]),
            (5.9, arrive(4, "a"), ["reject 4 BACK_OFF"]),
            (6, arrive(5, "a"), ["start a:only as 4"]),
        ],
    )


def test_an_engine_that_crashes_once_may_start_again_at_once_and_then_after_1_2_4_seconds() -> None:
    subject, now, ticket = scheduler(A), 0.0, 1
    for engine, pause in enumerate([0, 1, 2, 4, 8, 16, 30, 30], 1):
        play(
            subject,
            [
                (now, arrive(ticket, "a"), [f"start a:only as {engine}"]),
                (now + 1, ready(engine), [f"grant {ticket} engine {engine}"]),
                (now + 2, EngineExited(engine, "killed"), []),
            ],
        )
        ticket += 1
        if pause:
            early = [(now + 1.9 + pause, arrive(ticket, "a"), [f"reject {ticket} BACK_OFF"])]
            (refused,) = play(subject, early)
            assert isinstance(refused, Reject)
            assert refused.retry_after_s == pytest.approx(0.1)
            assert "killed" in refused.message
            ticket += 1
        now += 2 + pause


def test_who_waits_when_an_engine_crashes_again_is_told_when_to_come_back() -> None:
    (refused,) = play(
        scheduler(A),
        [
            *loaded("a"),
            (1, EngineExited(1, "killed"), []),
            (2, arrive(2, "a"), ["start a:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (4, arrive(3, "a"), []),
            (5, EngineExited(2, "killed"), ["reject 3 BACK_OFF"]),
        ],
    )
    assert isinstance(refused, Reject)
    assert refused.retry_after_s == 1
    assert refused.message == (
        "a:only failed 2 times in a row; the next start is in 1.0 s. Last failure: killed"
    )


def test_a_minute_of_good_service_makes_up_for_earlier_crashes() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, EngineExited(1, "killed"), []),
            (2, arrive(2, "a"), ["start a:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (63, EngineExited(2, "killed"), []),
            (63, arrive(3, "a"), ["start a:only as 3"]),
        ],
    )


def test_a_large_start_that_fails_leaves_those_waiting_whom_a_smaller_variant_holds() -> None:
    play(
        scheduler(*GROWING, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", 10), ["drain 1"]),
            (2, arrive(3, "a", LARGE), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:large as 2"]),
            (
                5,
                EngineFailed(2, "out of memory"),
                ["reject 3 START_FAILED", "start a:small as 3"],
            ),
            (6, ready(3), ["grant 2 engine 3"]),
        ],
    )


def test_the_back_off_of_one_variant_does_not_hold_back_another() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (0, EngineFailed(1, "out of memory"), ["reject 1 START_FAILED"]),
            (0, arrive(2, "a", 10), ["start a:small as 2"]),
        ],
    )


def test_an_engine_that_crashes_under_leases_is_replaced_for_those_who_wait() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a"), []),
            (3, EngineExited(1), ["start a:only as 2"]),
            (4, ready(2), ["grant 2 engine 2"]),
        ],
    )


def test_a_lease_returned_after_its_engine_is_gone_is_not_another_engines_lease() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (3, EngineExited(1), []),
            (4, arrive(2, "a"), ["start a:only as 2"]),
            (5, ready(2), ["grant 2 engine 2"]),
            (6, arrive(3, "a"), []),
            (7, LeaseReturned(1), []),
            (8, LeaseReturned(2), ["grant 3 engine 2"]),
        ],
    )
