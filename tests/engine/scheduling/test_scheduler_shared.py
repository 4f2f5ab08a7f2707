"""Engines whose slots share their tokens: no more is granted at once than they have."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GB,
    GROWING,
    LARGE,
    SMALL,
    A,
    B,
    LeaseBack,
    Step,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import LeaseReturned, Reject, TicketGone, TimePassed
from trio_gateway.engine.scheduling.scheduler import Scheduler


def sharing(need: int = 100, *, queue_limit: int = 256, window_s: float = 0.0) -> Scheduler:
    """An engine of `a` whose four slots share 1000 tokens; ticket 1 has so many of them."""
    subject = scheduler(A, B, queue_limit=queue_limit, window_s=window_s)
    play(
        subject,
        [
            (0, arrive(1, "a", need), ["start a:only as 1"]),
            (0, ready(1, slots=4, shared_tokens=SMALL), ["grant 1 engine 1"]),
        ],
    )
    return subject


def test_requests_are_granted_while_the_tokens_last() -> None:
    play(
        sharing(400),
        [
            (1, arrive(2, "a", 400), ["grant 2 engine 1"]),
            (1, arrive(3, "a", 400), []),
            (2, LeaseReturned(1), ["grant 3 engine 1"]),
        ],
    )


def test_requests_may_have_exactly_all_tokens_together() -> None:
    play(sharing(400), [(1, arrive(2, "a", 600), ["grant 2 engine 1"])])


def test_the_slots_are_a_limit_all_the_same() -> None:
    play(
        sharing(),
        [
            *[(1, arrive(n, "a", 100), [f"grant {n} engine 1"]) for n in (2, 3, 4)],
            (1, arrive(5, "a", 100), []),
        ],
    )


def test_one_request_may_have_all_tokens_of_an_idle_engine() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", SMALL), []),
            (2, LeaseReturned(1), ["grant 2 engine 1"]),
            (3, LeaseReturned(2), []),
        ],
    )


def test_an_idle_engine_serves_what_its_context_holds_though_fewer_tokens_are_shared() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a", 1), ["start a:only as 1"]),
            (0, ready(1, slots=4, shared_tokens=SMALL - 1), ["grant 1 engine 1"]),
            (1, arrive(2, "a", SMALL), []),
            (2, LeaseReturned(1), ["grant 2 engine 1"]),
        ],
    )


def test_an_engine_without_shared_tokens_is_granted_by_its_slots_alone() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a", SMALL), ["start a:only as 1"]),
            (0, ready(1, slots=2), ["grant 1 engine 1"]),
            (1, arrive(2, "a", SMALL), ["grant 2 engine 1"]),
        ],
    )


def test_an_engine_that_gets_ready_is_granted_to_as_many_as_it_has_tokens_for() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a", 600), ["start a:only as 1"]),
            (0, arrive(2, "a", 300), []),
            (0, arrive(3, "a", 300), []),
            (
                1,
                ready(1, slots=4, shared_tokens=SMALL),
                ["grant 1 engine 1", "grant 2 engine 1"],
            ),
            (2, LeaseReturned(2), ["grant 3 engine 1"]),
        ],
    )


# -- turns ---------------------------------------------------------------------------------------


def test_a_large_request_is_not_overtaken_by_small_ones_that_would_fit() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 950, client="x"), []),
            (2, arrive(3, "a", 100, client="y"), []),
            (3, LeaseReturned(1), ["grant 2 engine 1"]),
            (4, LeaseReturned(2), ["grant 3 engine 1"]),
        ],
    )


def test_it_waits_until_as_many_leases_are_back_as_it_needs() -> None:
    play(
        sharing(300),
        [
            (1, arrive(2, "a", 300), ["grant 2 engine 1"]),
            (1, arrive(3, "a", 300), ["grant 3 engine 1"]),
            (2, arrive(4, "a", 700, client="x"), []),
            (3, arrive(5, "a", 10, client="y"), []),
            (4, LeaseReturned(2), []),
            (5, LeaseReturned(1), ["grant 4 engine 1"]),
            (6, LeaseReturned(3), ["grant 5 engine 1"]),
        ],
    )


def test_when_it_leaves_those_behind_it_are_granted() -> None:
    play(
        sharing(),
        [
            (1, arrive(2, "a", 950), []),
            (2, arrive(3, "a", 100), []),
            (3, TicketGone(2), ["grant 3 engine 1"]),
        ],
    )


def test_a_large_batch_request_lets_interactive_ones_go_first_until_it_has_aged() -> None:
    play(
        sharing(window_s=1),
        [
            (1, batch(2, "a", 950, client="x"), []),
            (2, arrive(3, "a", 100, client="y"), ["grant 3 engine 1"]),
            (11, TimePassed(), []),
            (12, arrive(4, "a", 100, client="z"), []),
            (13, LeaseReturned(1), []),
            (14, LeaseReturned(3), ["grant 2 engine 1"]),
        ],
    )


def test_who_does_not_fit_into_what_a_small_engine_has_left_may_have_a_larger_one() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", 300), ["start a:small as 1"]),
            (0, ready(1, slots=4, shared_tokens=SMALL), ["grant 1 engine 1"]),
            (1, arrive(2, "a", LARGE), ["start a:large as 2"]),
            (2, arrive(3, "a", 900), []),
            (
                3,
                ready(2, slots=4, context=LARGE, shared_tokens=LARGE),
                ["grant 2 engine 2"],
            ),
            (4, LeaseReturned(2), ["grant 3 engine 2"]),
        ],
    )


def test_in_overtime_too_nobody_overtakes_the_oldest() -> None:
    play(
        scheduler(A, B, window_s=5),
        [
            (0, arrive(1, "a", 400), ["start a:only as 1"]),
            (0, ready(1, slots=4, shared_tokens=SMALL), ["grant 1 engine 1"]),
            (1, arrive(2, "a", 400), ["grant 2 engine 1"]),
            (2, arrive(3, "a", 700), []),
            (2, arrive(4, "a", 100), []),
            (3, arrive(5, "b"), []),
            (8, TimePassed(), []),
            (9, LeaseReturned(1), []),
            (10, LeaseReturned(2), ["grant 3 engine 1", "grant 4 engine 1", "drain 1"]),
        ],
    )


# -- the full queue --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "decided"),
    [
        ([], ["grant 9 engine 1"]),
        ([(1, arrive(2, "a", 950), [])], ["reject 9 QUEUE_FULL"]),
        ([(1, batch(2, "a", 950), [])], ["grant 9 engine 1"]),
        ([(1, arrive(2, "b"), ["drain 1"])], ["reject 9 QUEUE_FULL"]),
    ],
    ids=["nobody waits", "behind a large one", "before a batch one", "it drains"],
)
def test_a_full_queue_rejects_whoever_would_have_to_wait_and_nobody_else(
    waiting: list[Step], decided: list[str]
) -> None:
    subject = sharing(queue_limit=1)
    play(subject, [*waiting, *([] if waiting else [(1, batch(2, "b"), [])])])
    play(subject, [(2, arrive(9, "a", 100), decided)])


def test_who_does_not_fit_into_what_is_left_is_told_to_wait_for_a_lease() -> None:
    (refused,) = play(
        sharing(300, queue_limit=1),
        [(1, batch(2, "b"), []), (2, arrive(3, "a", 800), ["reject 3 QUEUE_FULL"])],
    )
    assert isinstance(refused, Reject)
    assert refused.retry_after_s == 8


def test_an_engine_that_takes_no_newcomers_any_more_has_no_slot_for_them() -> None:
    """Both have to go for `c`. The one of `a` is in overtime, so that of `b` need not hurry."""
    small = [variant(model, declared=5 * GB) for model in "ab"]
    large = variant("c", declared=9 * GB)
    subject = scheduler(*small, large, primary=3, memory_bytes=10 * GB, window_s=5, queue_limit=2)
    play(
        subject,
        [
            *loaded("ab"),
            (1, LeaseBack(2), []),
            (1, arrive(3, "a"), []),
            (2, arrive(4, "c"), []),
            (7, TimePassed(), []),
            (8, arrive(5, "b"), ["reject 5 QUEUE_FULL"]),
        ],
    )
