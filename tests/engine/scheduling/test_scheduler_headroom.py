"""Room to grow: what is started holds it, and what runs need not."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GB,
    GROWING,
    LARGE,
    SMALL,
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
    EngineFailed,
    EngineMeasured,
    Start,
    TicketGone,
    TimePassed,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler

MIDDLE = 2000
THREE = (variant("a:small", SMALL), variant("a:middle", MIDDLE), variant("a:large", LARGE))


@pytest.mark.parametrize(
    ("need", "start_need", "started"),
    [
        (900, 0, "small"),
        (900, 100, "small"),
        (900, SMALL, "small"),
        (900, SMALL + 1, "middle"),
        (900, MIDDLE + 1, "large"),
        (900, 100 * LARGE, "large"),
        (LARGE, 100 * LARGE, "large"),
    ],
    ids=["none", "less", "just fits", "next", "largest", "more than there is", "at the limit"],
)
def test_the_smallest_variant_that_holds_the_room_to_grow_is_started_or_the_largest_there_is(
    need: int, start_need: int, started: str
) -> None:
    play(
        scheduler(*THREE),
        [(0, arrive(1, "a", need, start_need=start_need), [f"start a:{started} as 1"])],
    )


def test_a_running_engine_that_holds_the_need_serves_it_whatever_room_is_wished_for() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (1, ready(1, slots=2), ["grant 1 engine 1"]),
            (2, arrive(2, "a", 900, start_need=LARGE), ["grant 2 engine 1"]),
            (3, arrive(3, "a", 900, start_need=LARGE), []),
            (4, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )


def test_an_engine_that_starts_already_is_waited_for() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (1, arrive(2, "a", 900, start_need=LARGE), []),
            (2, ready(1, slots=2), ["grant 1 engine 1", "grant 2 engine 1"]),
        ],
    )


def test_a_draining_engine_that_holds_the_need_is_called_back() -> None:
    """It drains for the ticket in batch, which lets the newcomer go first."""
    small, large = variant("a:small"), variant("a:large", LARGE)
    subject = scheduler(small, large, B)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "b"), ["drain 1"]),
            (2, arrive(3, "a", start_need=LARGE), []),
            (3, TicketGone(2), ["resume 1"]),
            (4, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )


def test_one_start_has_room_for_all_that_it_is_for() -> None:
    play(
        scheduler(*THREE, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", 1500), ["drain 1"]),
            (2, arrive(3, "a", 100, start_need=3000), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:large as 2"]),
            (5, ready(2, slots=2, context=LARGE), ["grant 2 engine 2", "grant 3 engine 2"]),
        ],
    )


def test_the_room_that_a_ticket_wished_for_is_forgotten_with_the_ticket() -> None:
    play(
        scheduler(*THREE, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", 1500), ["drain 1"]),
            (2, arrive(3, "a", 100, start_need=3000), []),
            (2, TicketGone(3), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:middle as 2"]),
        ],
    )


def test_a_start_has_no_room_for_tickets_that_a_running_engine_holds() -> None:
    """Ticket 2 waits for the small engine, so what it wishes for is not asked."""
    play(
        scheduler(*THREE, primary=2),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a", start_need=LARGE), []),
            (3, arrive(3, "a", 1500), ["start a:middle as 2"]),
        ],
    )


def test_what_an_engine_holds_in_truth_decides_which_variant_has_the_room() -> None:
    """The middle variant turned out to hold 1200 tokens."""
    play(
        scheduler(*THREE),
        [
            (0, arrive(1, "a", 1100), ["start a:middle as 1"]),
            (1, ready(1, context=1200), ["grant 1 engine 1"]),
            (2, EngineExited(1), []),
            (3, arrive(2, "a", 900, start_need=1500), ["start a:large as 2"]),
        ],
    )


def test_who_waits_at_an_engine_that_has_to_drain_gets_a_start_with_room_in_the_same_moment() -> (
    None
):
    """Their address is the same: the small engine goes, and the large one needs nobody to go."""
    small, large = variant("a:small", endpoint="x"), variant("a:large", LARGE)
    play(
        scheduler(small, large, variant("b", endpoint="x", load_time_s=0), primary=3),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "a", start_need=LARGE), []),
            (2, arrive(3, "b"), ["drain 1", "start a:large as 2"]),
        ],
    )


# -- a larger variant that does not start -----------------------------------------------------


def large_failed() -> Scheduler:
    """The large variant failed at 0, so its next start is not before 1."""
    subject = scheduler(*THREE, B)
    play(
        subject,
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (0, EngineFailed(1, "out of memory"), ["reject 1 START_FAILED"]),
        ],
    )
    return subject


def test_when_the_larger_variant_does_not_start_the_one_that_holds_the_need_does() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", 900, start_need=LARGE), ["start a:large as 1"]),
            (3, EngineFailed(1, "out of memory"), ["start a:small as 2"]),
            (4, ready(2), ["grant 1 engine 2"]),
        ],
    )


def test_a_start_with_room_that_fails_rejects_those_only_that_need_it_themselves() -> None:
    play(
        scheduler(*GROWING, B),
        [
            *loaded("b"),
            (1, arrive(2, "a", 900, start_need=LARGE), ["drain 1"]),
            (1, arrive(3, "a", LARGE), []),
            (2, LeaseBack(1), ["stop 1"]),
            (3, EngineExited(1), ["start a:large as 2"]),
            (4, EngineFailed(2, "boom"), ["reject 3 START_FAILED", "start a:small as 3"]),
        ],
    )


@pytest.mark.parametrize(
    ("at", "started"), [(0.9, "small"), (1.0, "large")], ids=["in back-off", "after it"]
)
def test_in_the_back_off_of_the_larger_variant_the_one_that_holds_the_need_is_started(
    at: float, started: str
) -> None:
    play(large_failed(), [(at, arrive(2, "a", 900, start_need=LARGE), [f"start a:{started} as 2"])])


def test_a_start_that_waits_for_room_is_of_the_larger_variant_again_after_its_back_off() -> None:
    play(
        large_failed(),
        [
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (0, ready(2), ["grant 2 engine 2"]),
            (0.5, arrive(3, "a", 900, start_need=LARGE), ["drain 2"]),
            (0.9, LeaseBack(2), ["stop 2"]),
            (1.0, EngineExited(2), ["start a:large as 3"]),
        ],
    )


def test_that_its_back_off_is_over_is_seen_though_no_ticket_and_no_engine_has_moved() -> None:
    """Nobody knew what the engine of `b` holds, so it had the pool for itself."""
    small, large = variant("a:small", declared=1 * GB), variant("a:large", LARGE, declared=2 * GB)
    play(
        scheduler(small, large, B, primary=2, memory_bytes=10 * GB, window_s=100),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (0, EngineFailed(1, "out of memory"), ["reject 1 START_FAILED"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (0, ready(2), ["grant 2 engine 2"]),
            (0.5, arrive(3, "a", start_need=LARGE), []),
            (1.5, EngineMeasured(2, 3 * GB), ["start a:large as 3"]),
        ],
    )


def test_a_ticket_waits_when_the_variant_that_it_needs_is_in_back_off() -> None:
    play(
        large_failed(),
        [
            (0.5, arrive(2, "a", 3000, start_need=LARGE), []),
            (1.0, TimePassed(), ["start a:large as 2"]),
        ],
    )


def test_the_larger_variant_is_started_though_the_one_that_holds_the_need_is_in_back_off() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0.5, arrive(2, "a", 900, start_need=LARGE), ["start a:large as 2"]),
            (0.6, EngineFailed(2, "boom"), []),
            (1.0, TimePassed(), ["start a:small as 3"]),
        ],
    )


def test_of_two_variants_in_back_off_the_one_that_may_be_started_first_is_waited_for() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (0.5, arrive(2, "a"), ["start a:small as 2"]),
            (0.6, EngineFailed(2, "boom"), ["reject 2 START_FAILED"]),
            (0.7, arrive(3, "a", 900, start_need=LARGE), []),
            (1.0, TimePassed(), ["start a:large as 3"]),
        ],
    )


def test_a_start_that_was_given_smaller_is_not_started_again_larger_while_it_loads() -> None:
    play(
        large_failed(),
        [
            (0.5, arrive(2, "a", 900, start_need=LARGE), ["start a:small as 2"]),
            (1.5, arrive(3, "a", 900, start_need=LARGE), []),
            (2.0, TimePassed(), []),
            (3.0, ready(2, slots=2), ["grant 2 engine 2", "grant 3 engine 2"]),
        ],
    )


# -- the reason ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_need", "reason"),
    [
        (2090, "1 request waits; the largest needs 1900 tokens (2090 with headroom)"),
        (1900, "1 request waits; the largest needs 1900 tokens"),
        (0, "1 request waits; the largest needs 1900 tokens"),
    ],
)
def test_a_start_says_the_largest_need_and_the_room_to_grow_if_there_is_any(
    start_need: int, reason: str
) -> None:
    (start,) = scheduler(*THREE).handle(arrive(1, "a", 1900, start_need=start_need), 0)
    assert isinstance(start, Start)
    assert start.reason == reason


def test_a_start_says_what_the_tickets_need_that_it_is_for() -> None:
    """Ticket 2 has an engine, and ticket 4 needs less than ticket 3, but wishes for more."""
    subject = scheduler(*THREE, B, primary=2)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:small as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (0, arrive(5, "b"), ["start b:only as 2"]),
            (0, ready(2), ["grant 5 engine 2"]),
            (1, arrive(6, "a", 900, start_need=3900), []),
            (1, arrive(7, "a", 1500, start_need=1600), ["drain 1"]),
            (2, arrive(8, "a", 1400, start_need=2800), []),
            (3, LeaseBack(1), ["stop 1"]),
        ],
    )
    (start,) = subject.handle(EngineExited(1), 4)
    assert isinstance(start, Start)
    assert (start.variant.variant, start.reason) == (
        "large",
        "3 requests wait; the largest needs 1500 tokens (3900 with headroom)",
    )
