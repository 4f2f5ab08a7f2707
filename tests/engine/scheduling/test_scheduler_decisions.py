"""What a decision says: how a ticket came by its engine, and why an engine starts or stops."""

from __future__ import annotations

from tests.support.scheduler_tables import (
    GB,
    GROWING,
    A,
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
    Action,
    Drain,
    EngineExited,
    Grant,
    How,
    LeaseReturned,
    Resume,
    ShutDown,
    Start,
    Stop,
    TicketGone,
    TimePassed,
)


def grants(actions: list[Action]) -> list[tuple[int, How, list[str]]]:
    return [(a.ticket, a.how, [*map(str, a.evicted)]) for a in actions if isinstance(a, Grant)]


def reasons(actions: list[Action]) -> list[str]:
    return [a.reason for a in actions if isinstance(a, Start | Stop | Drain | Resume)]


def test_whoever_waited_for_a_load_started_it_and_whoever_came_later_reuses_it() -> None:
    subject = scheduler(A)
    subject.handle(arrive(1, "a"), 0)
    subject.handle(arrive(2, "a"), 1)
    assert grants(subject.handle(ready(1, slots=3), 2)) == [
        (1, How.STARTED, []),
        (2, How.STARTED, []),
    ]
    assert grants(subject.handle(arrive(3, "a"), 3)) == [(3, How.REUSED, [])]


def test_who_came_while_it_loaded_has_waited_for_the_load_though_others_went_first() -> None:
    subject = scheduler(A)
    play(subject, [(0, arrive(1, "a"), ["start a:only as 1"]), (1, arrive(2, "a"), [])])
    subject.handle(ready(1), 2)
    assert grants(subject.handle(LeaseReturned(1), 3)) == [(2, How.STARTED, [])]


def test_who_waited_for_a_slot_of_a_ready_engine_reuses_it() -> None:
    subject = scheduler(A)
    play(subject, [*loaded("a"), (1, arrive(2, "a"), [])])
    assert grants(subject.handle(LeaseReturned(1), 3)) == [(2, How.REUSED, [])]


def test_a_swap_names_all_that_was_evicted_for_it() -> None:
    small = [variant(model, declared=5 * GB) for model in "ab"]
    subject = scheduler(*small, variant("c", declared=9 * GB), primary=3, memory_bytes=10 * GB)
    play(
        subject,
        [
            *loaded("ab"),
            (1, arrive(3, "c"), ["drain 1", "drain 2"]),
            (2, LeaseBack(1), ["stop 1"]),
            (3, LeaseBack(2), ["stop 2"]),
            (4, EngineExited(1), []),
            (5, EngineExited(2), ["start c:only as 3"]),
        ],
    )
    swapped = subject.handle(ready(3), 6)
    assert grants(swapped) == [(3, How.SWAPPED, ["a:only", "b:only"])]


def test_what_was_evicted_for_a_ticket_that_left_is_not_said_of_a_later_start() -> None:
    subject = scheduler(A, B)
    play(
        subject,
        [
            *loaded("a"),
            (1, arrive(2, "b"), ["drain 1"]),
            (2, TicketGone(2), ["resume 1"]),
            (3, LeaseBack(1), []),
            (4, EngineExited(1, "killed"), []),
            (5, arrive(3, "b"), ["start b:only as 2"]),
        ],
    )
    assert grants(subject.handle(ready(2), 6)) == [(3, How.STARTED, [])]


def test_an_idle_engine_that_was_stopped_earlier_is_not_evicted_for_anybody() -> None:
    subject = scheduler(variant("a", idle_timeout_s=5), B)
    play(
        subject,
        [
            *loaded("a"),
            (1, LeaseBack(1), []),
            (6, TimePassed(), ["stop 1"]),
            (7, EngineExited(1), []),
            (8, arrive(2, "b"), ["start b:only as 2"]),
        ],
    )
    assert grants(subject.handle(ready(2), 9)) == [(2, How.STARTED, [])]


def test_a_start_says_how_many_wait_and_what_the_largest_needs() -> None:
    (start,) = scheduler(A).handle(arrive(1, "a", 321), 0)
    assert reasons([start]) == ["1 request waits; the largest needs 321 tokens"]

    subject = scheduler(*GROWING, B)
    play(subject, [*loaded("b"), (1, arrive(2, "a", 20), ["drain 1"])])
    play(subject, [(1, arrive(3, "a", 1200), []), (1, arrive(4, "a", 1100), [])])
    subject.handle(LeaseReturned(1), 2)
    started = subject.handle(EngineExited(1), 3)
    assert reasons(started) == ["3 requests wait; the largest needs 1200 tokens"]


def test_a_stop_and_a_drain_say_whom_they_are_for() -> None:
    idle = scheduler(A, B)
    play(idle, [*loaded("a"), (1, LeaseBack(1), [])])
    assert reasons(idle.handle(arrive(2, "b"), 2)) == ["swap to b:only"]

    busy = scheduler(variant("a", load_time_s=0), variant("b", load_time_s=0), window_s=10)
    play(busy, [*loaded("a"), (2, arrive(2, "b"), [])])
    assert reasons(busy.handle(TimePassed(), 12)) == ["swap to b:only, which has waited 10.0 s"]
    assert reasons(busy.handle(LeaseReturned(1), 13)) == ["drained"]


def test_a_drain_that_is_called_off_says_why() -> None:
    subject = scheduler(A, B)
    play(subject, [*loaded("a"), (1, arrive(2, "b"), ["drain 1"])])
    assert reasons(subject.handle(TicketGone(2), 2)) == ["its room is no longer needed"]


def test_a_stop_says_that_nobody_needs_the_engine() -> None:
    idle = scheduler(variant("a", idle_timeout_s=7.5))
    play(idle, [*loaded("a"), (1, LeaseBack(1), [])])
    assert reasons(idle.handle(TimePassed(), 8.5)) == ["idle for 7.5 s"]

    loading = scheduler(A)
    loading.handle(arrive(1, "a"), 0)
    assert reasons(loading.handle(TicketGone(1), 1)) == ["no request waits for it any longer"]

    closing = scheduler(A)
    play(closing, loaded("a"))
    assert reasons(closing.handle(ShutDown(), 1)) == ["the gateway is stopping"]
