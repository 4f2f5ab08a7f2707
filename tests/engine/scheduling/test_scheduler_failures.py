"""Starts that fail and engines that crash."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    B,
    LeaseBack,
    Step,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
)
from trio_gateway.engine.scheduling.back_off import WAITED_OUT_S
from trio_gateway.engine.scheduling.elsewhere_events import SlotsChanged
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    LeaseReturned,
    Refusal,
    Reject,
    TicketGone,
    TimePassed,
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


def test_what_is_not_there_now_may_be_there_in_a_while() -> None:
    subject = scheduler(A)
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"])])
    (told,) = subject.handle(EngineFailed(1, "no room", unavailable=True), 4)
    assert isinstance(told, Reject)
    assert (told.refusal, told.retry_after_s) == (Refusal.UNAVAILABLE, 1.0)


def test_an_engine_has_other_places_than_a_moment_ago() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1, slots=1), ["grant 1 engine 1"]),
            (2, arrive(2, "a"), []),
            (3, SlotsChanged(1, 2), ["grant 2 engine 1"]),
            (4, SlotsChanged(1, 1), []),
            (5, arrive(3, "a"), []),
            (6, LeaseBack(1), []),  # the other one has the only place
            (7, LeaseBack(1), ["grant 3 engine 1"]),
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
        first, second = attempt * 2, attempt * 2 + 1
        play(
            subject,
            [
                (now, arrive(first, "a"), [f"start a:only as {attempt}"]),
                (now, EngineFailed(attempt, "boom"), [f"reject {first} START_FAILED"]),
            ],
        )
        if pause > WAITED_OUT_S:
            (refused,) = play(subject, [(now, arrive(second, "a"), [f"reject {second} BACK_OFF"])])
            assert isinstance(refused, Reject)
            assert refused.retry_after_s == pause
            assert "boom" in refused.message
        now += pause


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_pause_of_up_to_5_seconds_is_waited_out(failures: int) -> None:
    subject, now = failed(failures)
    pause = 2.0 ** (failures - 1)
    play(subject, [(now, arrive(9, "a"), []), (now + pause - 0.1, arrive(10, "a"), [])])
    assert subject.next_deadline() == now + pause
    play(subject, [(now + pause, TimePassed(), [f"start a:only as {failures + 1}"])])


@pytest.mark.parametrize(
    ("left_s", "expected"), [(5.1, ["reject 9 BACK_OFF"]), (5.0, [])], ids=["long", "short"]
)
def test_of_a_longer_pause_the_end_is_waited_out(left_s: float, expected: list[str]) -> None:
    subject, now = failed(4)
    play(subject, [(now + 8 - left_s, arrive(9, "a"), expected)])


def test_who_waits_for_the_end_of_a_pause_is_in_nobodys_way() -> None:
    """Neither a free place of the pool nor an engine that works is kept for it."""
    play(
        scheduler(A, B, window_s=0),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0.1, arrive(2, "a"), []),
            (0.2, arrive(3, "b"), ["start b:only as 2"]),
            (0.3, ready(2), ["grant 3 engine 2"]),
            (0.4, LeaseBack(2), []),
            (0.5, arrive(4, "b"), ["grant 4 engine 2"]),
            (0.9, LeaseBack(2), []),
            (1.0, TimePassed(), ["stop 2"]),
            (1.1, EngineExited(2), ["start a:only as 3"]),
        ],
    )


def test_a_smaller_variant_serves_while_others_wait_for_the_larger_one() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0.1, arrive(2, "a", LARGE), []),
            (0.2, arrive(3, "a", 10), ["start a:small as 2"]),
            (0.3, ready(2), ["grant 3 engine 2"]),
            (1.0, TimePassed(), ["start a:large as 3"]),
            (1.1, ready(3, context=LARGE), ["grant 2 engine 3"]),
        ],
    )


def test_who_gives_up_in_a_pause_leaves_nothing_behind() -> None:
    subject, now = failed(1)
    play(subject, [(now, arrive(9, "a"), []), (now + 0.5, TicketGone(9), [])])
    assert subject.next_deadline() is None


def test_in_a_pause_a_ticket_waits_no_longer_than_queue_timeout() -> None:
    subject = scheduler(A, queue_timeout_s=0.5)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0, arrive(2, "a"), []),
        ],
    )
    assert subject.next_deadline() == 0.5
    (refused,) = play(subject, [(0.5, TimePassed(), ["reject 2 QUEUE_TIMEOUT"])])
    assert isinstance(refused, Reject)
    assert refused.message == (
        "no engine was free within 0.5 s (queue_timeout); a:only failed once; the next start is in "
        "0.5 s. Last failure: boom"
    )


def failed(times: int) -> tuple[Scheduler, float]:
    """With the time of the last failure."""
    subject, now = scheduler(A), 0.0
    for attempt in range(1, times + 1):
        play(
            subject,
            [
                (now, arrive(attempt, "a"), [f"start a:only as {attempt}"]),
                (now, EngineFailed(attempt, "boom"), [f"reject {attempt} START_FAILED"]),
            ],
        )
        if attempt < times:
            now += 2.0 ** (attempt - 1)
    return subject, now


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
            (5.9, arrive(4, "a"), []),
            (6, TimePassed(), ["start a:only as 4"]),
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
        if pause > WAITED_OUT_S:
            (refused,) = play(
                subject, [(now + 2, arrive(ticket, "a"), [f"reject {ticket} BACK_OFF"])]
            )
            assert isinstance(refused, Reject)
            assert refused.retry_after_s == pause
            assert "killed" in refused.message
            ticket += 1
        now += 2 + pause


def test_who_waits_when_an_engine_crashes_again_is_served_by_the_next_one_in_a_second() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, EngineExited(1, "killed"), []),
            (2, arrive(2, "a"), ["start a:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (4, arrive(3, "a"), []),
            (5, EngineExited(2, "killed"), []),
            (5, LeaseReturned(2), []),
            (5, arrive(4, "a"), []),  # the one that lost it
            (6, TimePassed(), ["start a:only as 3"]),
            (7, ready(3, slots=2), ["grant 3 engine 3", "grant 4 engine 3"]),
        ],
    )


def test_who_waits_when_an_engine_crashes_too_often_is_told_when_to_come_back() -> None:
    crashes: list[Step] = []
    for number, at in ((2, 1), (3, 3), (4, 6), (5, 11)):
        crashes += [
            (at, arrive(number, "a"), [f"start a:only as {number}"]),
            (at, ready(number), [f"grant {number} engine {number}"]),
            (at, EngineExited(number, "killed"), []),
        ]
    (refused,) = play(
        scheduler(A),
        [
            *loaded("a"),
            (1, EngineExited(1, "killed"), []),
            *crashes[:-1],
            (11.5, arrive(6, "a"), []),
            (12, EngineExited(5, "killed"), ["reject 6 BACK_OFF"]),
        ],
    )
    assert isinstance(refused, Reject)
    assert refused.retry_after_s == 8
    assert refused.message == (
        "a:only failed 5 times in a row; the next start is in 8.0 s. Last failure: killed"
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
