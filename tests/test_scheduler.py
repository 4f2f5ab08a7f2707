"""The scheduler as tables: what happens, and what it decides. No clock, no process, no trio."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_gateway.engine.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Reject,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduler import Scheduler

Step = tuple[float, Event, list[str]]

SMALL, LARGE = 1000, 4000


def variant(name: str, context: int = SMALL, *, pool: str = "primary") -> VariantFacts:
    """`name` is `model:variant`."""
    model, _, label = name.partition(":")
    return VariantFacts(key=VariantKey(model, label or "only"), pool=pool, context=context)


def at_address(
    name: str, endpoint: str, context: int = SMALL, *, pool: str = "primary"
) -> VariantFacts:
    plain = variant(name, context, pool=pool)
    return VariantFacts(key=plain.key, pool=pool, context=context, endpoint=endpoint)


def pinned(name: str) -> VariantFacts:
    plain = variant(name)
    return VariantFacts(key=plain.key, pool=plain.pool, context=plain.context, pinned=True)


def scheduler(
    *variants: VariantFacts,
    primary: int = 1,
    secondary: int = 1,
    queue_limit: int = 256,
    queue_timeout_s: float = 600.0,
) -> Scheduler:
    return Scheduler(
        variants,
        {"primary": primary, "secondary": secondary},
        queue_limit=queue_limit,
        queue_timeout_s=queue_timeout_s,
    )


def brief(action: Action) -> str:
    match action:
        case Grant(ticket, engine):
            return f"grant {ticket} engine {engine}"
        case Start(engine, key):
            return f"start {key} as {engine}"
        case Drain(engine):
            return f"drain {engine}"
        case Stop(engine):
            return f"stop {engine}"
        case Reject(ticket, refusal):
            return f"reject {ticket} {refusal.name}"


def play(subject: Scheduler, steps: Sequence[Step]) -> list[Action]:
    """Hold what it decides against the table; the actions of the last step."""
    actions: list[Action] = []
    for number, (now, event, expected) in enumerate(steps):
        actions = subject.handle(event, now)
        assert [brief(a) for a in actions] == expected, f"step {number}: {event}\n{subject!r}"
    return actions


def arrive(ticket: int, model: str, need: int = 100) -> TicketArrived:
    return TicketArrived(ticket, model, need)


def ready(engine: int, places: int = 1, context: int = SMALL) -> EngineReady:
    return EngineReady(engine, places, context)


A, B, C = variant("a"), variant("b"), variant("c")
GROWING = (variant("a:small", SMALL), variant("a:large", LARGE))


# -- grants ---------------------------------------------------------------------------------


def test_the_first_request_starts_an_engine_and_is_granted_when_it_is_ready() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseReturned(1), []),
        ],
    )


def test_a_running_engine_with_a_free_place_is_granted_at_once() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1, places=2), ["grant 1 engine 1"]),
            (4, arrive(2, "a"), ["grant 2 engine 1"]),
        ],
    )


def test_requests_share_an_engine_up_to_its_places_and_wait_in_order_beyond() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "a"), []),
            (0, arrive(3, "a"), []),
            (0, arrive(4, "a"), []),
            (3, ready(1, places=2), ["grant 1 engine 1", "grant 2 engine 1"]),
            (4, LeaseReturned(1), ["grant 3 engine 1"]),
            (5, LeaseReturned(1), ["grant 4 engine 1"]),
        ],
    )


def test_the_smallest_variant_that_holds_the_need_is_started() -> None:
    play(scheduler(*GROWING), [(0, arrive(1, "a", SMALL), ["start a:small as 1"])])
    play(scheduler(*GROWING), [(0, arrive(1, "a", SMALL + 1), ["start a:large as 1"])])


def test_a_running_larger_variant_serves_a_smaller_need() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
            (3, ready(1, context=LARGE), ["grant 1 engine 1"]),
            (4, arrive(2, "a", 10), []),
            (5, LeaseReturned(1), ["grant 2 engine 1"]),
        ],
    )


def test_the_smaller_of_two_running_variants_is_preferred() -> None:
    play(
        scheduler(*GROWING, primary=2),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (0, arrive(2, "a", LARGE), ["start a:large as 2"]),
            (3, ready(2, places=4, context=LARGE), ["grant 1 engine 2", "grant 2 engine 2"]),
            (3, ready(1), []),
            (4, arrive(3, "a", 10), ["grant 3 engine 1"]),
            (4, arrive(4, "a", 10), ["grant 4 engine 2"]),
        ],
    )


# -- swaps ----------------------------------------------------------------------------------


def test_an_idle_engine_is_stopped_for_another_model_and_the_start_waits_for_its_exit() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseReturned(1), []),
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
            (3, ready(1, places=4), ["grant 1 engine 1"]),
            (4, arrive(2, "a"), ["grant 2 engine 1"]),
            (5, arrive(3, "b"), ["drain 1"]),
            (6, arrive(4, "a"), []),
            (7, LeaseReturned(1), []),
            (8, LeaseReturned(1), ["stop 1"]),
            (9, EngineExited(1), ["start b:only as 2"]),
            (12, ready(2), ["grant 3 engine 2", "drain 2"]),
            (13, LeaseReturned(2), ["stop 2"]),
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
            (4, LeaseReturned(1), ["stop 1"]),
            (5, EngineExited(1), ["start a:large as 2"]),
            (9, ready(2, places=2, context=LARGE), ["grant 2 engine 2", "grant 3 engine 2"]),
        ],
    )


def test_growth_of_a_model_replaces_its_smaller_engine() -> None:
    play(
        scheduler(*GROWING),
        [
            (0, arrive(1, "a", 10), ["start a:small as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, arrive(2, "a", LARGE), ["drain 1"]),
            (5, LeaseReturned(1), ["stop 1"]),
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
            (2, LeaseReturned(1), []),
            (3, arrive(2, "a", 10), ["start a:small as 2"]),
            (4, ready(2), ["grant 2 engine 2"]),
            (5, LeaseReturned(2), []),
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
            (3, LeaseReturned(2), []),
            (4, LeaseReturned(1), []),
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
            (3, LeaseReturned(2), []),
            (5, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_a_pinned_engine_is_given_up_last() -> None:
    play(
        scheduler(pinned("a"), B, C, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, LeaseReturned(1), []),
            (2, arrive(2, "b"), ["start b:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (4, LeaseReturned(2), []),
            (5, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_two_waiting_starts_need_two_engines_given_up() -> None:
    play(
        scheduler(A, B, C, variant("d"), primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, arrive(3, "c"), ["drain 1"]),
            (2, arrive(4, "d"), ["drain 2"]),
            (3, LeaseReturned(2), ["stop 2"]),
            (4, EngineExited(2), ["start c:only as 3"]),
            (5, LeaseReturned(1), ["stop 1"]),
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


# -- addresses ------------------------------------------------------------------------------

SHARED = "http://127.0.0.1:8081"


def test_two_variants_with_one_address_never_run_together_even_in_different_pools() -> None:
    play(
        scheduler(at_address("a", SHARED), at_address("e", SHARED, pool="secondary")),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "e"), ["drain 1"]),
            (3, LeaseReturned(1), ["stop 1"]),
            (4, EngineExited(1), ["start e:only as 2"]),
        ],
    )


def test_an_address_whose_engine_an_earlier_request_waits_for_costs_no_other_engine() -> None:
    play(
        scheduler(
            at_address("a:small", SHARED), at_address("a:large", SHARED, LARGE), B, primary=2
        ),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, LeaseReturned(1), []),
            (3, arrive(2, "a", 10), ["start a:small as 2"]),
            (4, arrive(3, "a", LARGE), []),
            (5, ready(2), ["grant 2 engine 2", "drain 2"]),
            (6, LeaseReturned(2), ["stop 2"]),
            (7, EngineExited(2), ["start a:large as 3"]),
        ],
    )


def test_the_address_of_a_start_that_waits_for_room_is_taken_already() -> None:
    """A later start there would be stopped for the earlier one, and start again, without end."""
    play(
        scheduler(at_address("a", SHARED), B, at_address("e", SHARED, pool="secondary")),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a"), ["drain 1"]),
            (3, arrive(3, "e"), []),
            (4, LeaseReturned(1), ["stop 1"]),
            (5, EngineExited(1), ["start a:only as 2"]),
            (6, ready(2), ["grant 2 engine 2", "drain 2"]),
            (7, LeaseReturned(2), ["stop 2"]),
            (8, EngineExited(2), ["start e:only as 3"]),
        ],
    )


def test_a_start_that_waits_for_its_address_keeps_its_room() -> None:
    play(
        scheduler(
            A, at_address("b", SHARED), C, at_address("e", SHARED, pool="secondary"), primary=2
        ),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "e"), ["start e:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, arrive(3, "b"), ["drain 2"]),
            (3, arrive(4, "c"), ["drain 1"]),
            (4, LeaseReturned(2), ["stop 2"]),
            (5, EngineExited(2), ["start b:only as 3"]),
            (6, LeaseReturned(1), ["stop 1"]),
            (7, EngineExited(1), ["start c:only as 4"]),
        ],
    )


# -- idle engines ---------------------------------------------------------------------------


def test_an_engine_unused_for_its_idle_timeout_is_stopped() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, LeaseReturned(1), []),
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
            (4, LeaseReturned(1), []),
            (304, TimePassed(), ["stop 1"]),
            (304, arrive(2, "a"), []),
            (305, EngineExited(1), ["start a:only as 2"]),
        ],
    )


# -- the queue ------------------------------------------------------------------------------


def test_a_request_beyond_the_queue_limit_is_rejected_and_told_when_to_come_again() -> None:
    (last,) = play(
        scheduler(A, queue_limit=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "a"), []),
            (0, arrive(3, "a"), ["reject 3 QUEUE_FULL"]),
        ],
    )
    assert isinstance(last, Reject)
    assert last.retry_after_s == 5.0
    assert "queue_limit" in last.message


def test_a_full_queue_does_not_reject_a_request_that_need_not_wait() -> None:
    play(
        scheduler(A, variant("e", pool="secondary"), queue_limit=1),
        [
            (0, arrive(1, "e"), ["start e:only as 1"]),
            (1, ready(1, places=2), ["grant 1 engine 1"]),
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


# -- failures -------------------------------------------------------------------------------


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
            (5, LeaseReturned(1), ["grant 3 engine 1"]),
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


def test_an_engine_that_got_ready_ends_the_back_off() -> None:
    subject = scheduler(A)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
            (1, arrive(2, "a"), ["start a:only as 2"]),
            (2, ready(2), ["grant 2 engine 2"]),
            (3, EngineExited(2), []),
            (4, arrive(3, "a"), ["start a:only as 3"]),
        ],
    )
    play(subject, [(5, EngineFailed(3, "boom"), ["reject 3 START_FAILED"])])
    play(subject, [(6, arrive(4, "a"), ["start a:only as 4"])])


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


# -- contexts -------------------------------------------------------------------------------


def test_an_engine_with_less_context_than_declared_makes_way_for_a_larger_variant() -> None:
    subject = scheduler(*GROWING)
    play(
        subject,
        [
            (0, arrive(1, "a", 800), ["start a:small as 1"]),
            (1, ready(1, context=500), ["stop 1"]),
            (2, EngineExited(1), ["start a:large as 2"]),
            (3, ready(2, context=LARGE), ["grant 1 engine 2"]),
        ],
    )
    assert subject.contexts("a") == [500, LARGE]


def test_a_need_that_no_engine_holds_in_truth_is_rejected() -> None:
    (last,) = play(
        scheduler(A),
        [
            (0, arrive(1, "a", 800), ["start a:only as 1"]),
            (1, ready(1, context=500), ["reject 1 TOO_LARGE"]),
        ],
    )
    assert isinstance(last, Reject)
    assert "800" in last.message


def test_a_ticket_rides_along_only_with_a_start_that_in_truth_holds_it() -> None:
    play(
        scheduler(*GROWING, B, C, primary=2),
        [
            (0, arrive(1, "a", 100), ["start a:small as 1"]),
            (1, ready(1, context=500), ["grant 1 engine 1"]),
            (2, EngineExited(1), []),
            (3, arrive(2, "b"), ["start b:only as 2"]),
            (3, arrive(3, "c"), ["start c:only as 3"]),
            (4, ready(2), ["grant 2 engine 2"]),
            (4, ready(3), ["grant 3 engine 3"]),
            (5, arrive(4, "a", 400), ["drain 2"]),
            (6, arrive(5, "a", 900), ["drain 3"]),
        ],
    )


@pytest.mark.parametrize(
    ("first", "second", "largest"), [(10, LARGE, LARGE), (LARGE, 10, LARGE)], ids=["up", "down"]
)
def test_the_running_engine_of_a_model_is_its_largest(
    first: int, second: int, largest: int
) -> None:
    subject = scheduler(*GROWING, primary=2)
    assert subject.running("a") is None
    for engine, need in ((1, first), (2, second)):
        subject.handle(arrive(engine, "a", need), 0)
        if engine in subject.engines:
            subject.handle(ready(engine, context=subject.engines[engine].context), 1)
    running = subject.running("a")
    assert running is not None
    assert running.context == largest


# -- shutdown -------------------------------------------------------------------------------


def test_a_shutdown_rejects_tickets_stops_idle_engines_and_drains_busy_ones() -> None:
    play(
        scheduler(A, B, C, primary=3),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "b"), ["start b:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, LeaseReturned(1), []),
            (3, arrive(3, "b"), []),
            (3, arrive(4, "c"), ["start c:only as 3"]),
            (
                4,
                ShutDown(),
                ["reject 3 SHUTTING_DOWN", "reject 4 SHUTTING_DOWN", "stop 1", "drain 2", "stop 3"],
            ),
            (5, arrive(5, "a"), ["reject 5 SHUTTING_DOWN"]),
            (5, ready(3), []),
            (6, LeaseReturned(2), ["stop 2"]),
            (7, EngineExited(1), []),
            (7, EngineExited(2), []),
            (7, EngineExited(3), []),
            (8, ShutDown(), []),
        ],
    )


def test_a_second_shutdown_changes_nothing() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, ShutDown(), ["drain 1"]),
            (3, ShutDown(), []),
        ],
    )


def test_an_early_end_of_a_ticket_that_is_unknown_or_decided_is_no_error() -> None:
    play(scheduler(A), [(0, TicketGone(7), []), (0, TimePassed(), [])])


def test_its_state_can_be_printed() -> None:
    subject = scheduler(A)
    subject.handle(arrive(1, "a", 321), 0)
    assert "321" in repr(subject)
    assert "starting" in repr(subject).lower()


# -- any sequence of events -----------------------------------------------------------------


@dataclass
class Running:
    """An engine of the simulated world: a process that takes its time."""

    facts: VariantFacts
    loading: bool = True
    draining: bool = False
    stopping: bool = False
    places: int = 0
    context: int = 0
    leases: int = 0

    @property
    def usable(self) -> bool:
        return not (self.loading or self.draining or self.stopping)


@dataclass
class World:
    """What really happens, kept beside the scheduler and without its help.

    `take_in` hands it an event and holds each decision against the promises.
    """

    subject: Scheduler
    limits: dict[str, int]
    variants: dict[VariantKey, VariantFacts]
    now: float = 0.0
    next_ticket: int = 1
    waiting: dict[int, TicketArrived] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    live: dict[int, Running] = field(default_factory=dict)
    leases: list[int] = field(default_factory=list)
    starts: int = 0
    closing: bool = False

    def take_in(self, event: Event) -> None:
        for action in self.subject.handle(event, self.now):
            self._check(action)
        assert set(self.subject.tickets) == set(self.waiting)
        assert set(self.subject.engines) == set(self.live)
        deadline = self.subject.next_deadline()
        assert self.subject.handle(TicketGone(0), self.now) == [], "it had not decided all"
        assert self.subject.next_deadline() == deadline

    def _check(self, action: Action) -> None:
        match action:
            case Grant(ticket, number):
                asked, engine = self._end(ticket), self.live[number]
                assert engine.usable
                assert engine.facts.key.model == asked.model
                assert engine.context >= asked.need
                ahead = [t for t in self.waiting.values() if t.ticket < ticket]
                assert not [t for t in ahead if (t.model, t.need) == (asked.model, asked.need)]
                engine.leases += 1
                assert engine.leases <= engine.places
                self.leases.append(number)
            case Reject(ticket):
                self._end(ticket)
            case Start(number, key):
                facts = self.variants[key]
                assert not self.closing
                assert number not in self.live
                assert facts.endpoint is None or facts.endpoint not in {
                    e.facts.endpoint for e in self.live.values()
                }
                self.live[number] = Running(facts)
                here = [e for e in self.live.values() if e.facts.pool == facts.pool]
                assert len(here) <= self.limits[facts.pool]
                assert any(t.model == key.model for t in self.waiting.values())
                self.starts += 1
            case Drain(number):
                engine = self.live[number]
                assert engine.leases
                assert engine.usable
                engine.draining = True
            case Stop(number):
                engine = self.live[number]
                assert not engine.leases
                assert not engine.stopping
                engine.stopping = True

    def _end(self, ticket: int) -> TicketArrived:
        assert ticket not in self.ended
        self.ended.add(ticket)
        return self.waiting.pop(ticket)

    # -- what may happen ---------------------------------------------------------------------

    def arrive(self, model: str, need: int) -> None:
        event = TicketArrived(self.next_ticket, model, need)
        self.next_ticket += 1
        self.waiting[event.ticket] = event
        self.take_in(event)

    def client_leaves(self, choice: int) -> None:
        if self.waiting:
            ticket = sorted(self.waiting)[choice % len(self.waiting)]
            self._end(ticket)
            self.take_in(TicketGone(ticket))

    def engine_gets_ready(self, choice: int, *, places: int, percent: int) -> None:
        if (number := self._pick(choice, lambda e: e.loading)) is not None:
            engine = self.live[number]
            engine.loading, engine.places = False, places
            engine.context = engine.facts.context * percent // 100
            self.take_in(EngineReady(number, places, engine.context))

    def start_fails(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: e.loading)) is not None:
            del self.live[number]
            self.take_in(EngineFailed(number, "boom", timed_out=bool(choice % 2)))

    def engine_exits(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: e.stopping)) is not None:
            del self.live[number]
            self.take_in(EngineExited(number))

    def engine_crashes(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: not e.loading)) is not None:
            del self.live[number]
            self.take_in(EngineExited(number))

    def lease_ends(self, choice: int) -> None:
        if self.leases:
            number = self.leases.pop(choice % len(self.leases))
            if (engine := self.live.get(number)) is not None:
                engine.leases -= 1
            self.take_in(LeaseReturned(number))

    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.subject.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.take_in(TimePassed())
            after = self.subject.next_deadline()
            assert after is None or after > deadline, "the timer would spin"
        self.now = until

    def shut_down(self) -> None:
        self.closing = True
        self.take_in(ShutDown())

    def _pick(self, choice: int, of: Callable[[Running], bool]) -> int | None:
        numbers = [number for number, engine in sorted(self.live.items()) if of(engine)]
        return numbers[choice % len(numbers)] if numbers else None

    # -- the end -----------------------------------------------------------------------------

    def come_to_rest(self, order: random.Random) -> None:
        """From here on all starts succeed and all leases end, in any order, and no time passes:
        nothing but progress may be needed for every ticket to end."""
        starts_allowed = self.starts + 2 * len(self.waiting) + len(self.live)
        while any(e.loading or e.stopping for e in self.live.values()) or self.leases:
            moves: list[Callable[[int], None]] = []
            if self.leases:
                moves.append(self.lease_ends)
            if any(e.loading and not e.stopping for e in self.live.values()):
                moves.append(self._finish_load)
            if any(e.stopping for e in self.live.values()):
                moves.append(self.engine_exits)
            order.choice(moves)(order.randrange(1000))
            assert self.starts <= starts_allowed, "engines start and stop without serving"
        assert not self.waiting, "tickets wait, and nothing is under way for them"

    def _finish_load(self, choice: int) -> None:
        number = self._pick(choice, lambda e: e.loading and not e.stopping)
        assert number is not None
        engine = self.live[number]
        engine.loading, engine.places = False, 1 + choice % 2
        engine.context = self.subject.context_of(engine.facts)
        self.take_in(EngineReady(number, engine.places, engine.context))


NEEDS = (50, 100, 150, 400)
CONTEXTS = (100, 200, 400)
ENDPOINTS = (None, None, None, "http://127.0.0.1:8081", "http://127.0.0.1:8082")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    limits = {"p": draw(st.integers(1, 3)), "q": draw(st.integers(1, 2))}
    variants = [
        VariantFacts(
            key=VariantKey(model, str(context)),
            pool=pool,
            context=context,
            endpoint=draw(st.sampled_from(ENDPOINTS)),
            idle_timeout_s=draw(st.sampled_from((5.0, 60.0))),
            pinned=pinned_model,
        )
        for model in "abcd"
        for pool in [draw(st.sampled_from("ppq"))]
        for pinned_model in [draw(st.booleans())]
        for context in CONTEXTS[: draw(st.integers(1, len(CONTEXTS)))]
    ]
    subject = Scheduler(variants, limits, queue_limit=8, queue_timeout_s=30.0)
    return World(subject, limits, {facts.key: facts for facts in variants})


Happening = Callable[[World], None]
CHOICE = st.integers(0, 7)
ARRIVALS: st.SearchStrategy[Happening] = st.builds(
    lambda model, need: lambda world: world.arrive(model, need),
    st.sampled_from("abcd"),
    st.sampled_from(NEEDS),
)
READIES: st.SearchStrategy[Happening] = st.builds(
    lambda choice, places, percent: (
        lambda world: world.engine_gets_ready(choice, places=places, percent=percent)
    ),
    CHOICE,
    st.integers(1, 3),
    st.sampled_from((100, 100, 100, 100, 60)),
)
RETURNS: st.SearchStrategy[Happening] = st.builds(
    lambda choice: lambda world: world.lease_ends(choice), CHOICE
)
EXITS: st.SearchStrategy[Happening] = st.builds(
    lambda choice: lambda world: world.engine_exits(choice), CHOICE
)
MISHAPS: st.SearchStrategy[Happening] = st.one_of(
    st.builds(lambda choice: lambda world: world.client_leaves(choice), CHOICE),
    st.builds(lambda choice: lambda world: world.start_fails(choice), CHOICE),
    st.builds(lambda choice: lambda world: world.engine_crashes(choice), CHOICE),
    st.builds(
        lambda seconds: lambda world: world.time_passes(seconds),
        st.sampled_from((0.5, 1.0, 4.9, 5.0, 31.0, 100.0)),
    ),
)
HAPPENINGS = st.lists(
    st.one_of(ARRIVALS, ARRIVALS, ARRIVALS, READIES, READIES, RETURNS, EXITS, EXITS, MISHAPS),
    max_size=60,
)
MANY = settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(worlds(), HAPPENINGS, st.integers(0, 2**32))
def test_whatever_happens_the_promises_hold_and_every_ticket_ends(
    world: World, happenings: list[Happening], seed: int
) -> None:
    for happening in happenings:
        happening(world)
    world.come_to_rest(random.Random(seed))
    assert world.ended == set(range(1, world.next_ticket))
    world.time_passes(1000.0)
    world.come_to_rest(random.Random(seed))
    assert not world.live, "an engine outlived its idle timeout"
    assert world.subject.next_deadline() is None


@settings(MANY, max_examples=500)
@given(worlds(), HAPPENINGS, HAPPENINGS, st.integers(0, 2**32))
def test_whenever_a_shutdown_comes_all_tickets_end_at_once_and_all_engines_stop(
    world: World, before: list[Happening], after: list[Happening], seed: int
) -> None:
    for happening in before:
        happening(world)
    world.shut_down()
    assert not world.waiting
    for happening in after:
        happening(world)
        assert not world.waiting
    world.come_to_rest(random.Random(seed))
    assert not world.live
