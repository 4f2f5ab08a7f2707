"""Interactive before batch, and batch not for ever after."""

from __future__ import annotations

from tests.support.scheduler_tables import (
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
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    TicketGone,
    TimePassed,
)

WINDOW_S = 10.0


def test_a_batch_ticket_gets_a_slot_only_when_no_interactive_one_waits() -> None:
    play(
        scheduler(A, window_s=WINDOW_S),
        [
            *loaded("a"),
            (1, batch(2, "a"), []),
            (2, arrive(3, "a"), []),
            (3, arrive(4, "a"), []),
            (4, LeaseBack(1), ["grant 3 engine 1"]),
            (5, LeaseBack(1), ["grant 4 engine 1"]),
            (6, LeaseBack(1), ["grant 2 engine 1"]),
        ],
    )


def test_a_batch_ticket_starts_an_engine_and_shares_one_like_any_other() -> None:
    play(
        scheduler(A, window_s=WINDOW_S),
        [
            (0, batch(1, "a"), ["start a:only as 1"]),
            (1, ready(1, slots=2), ["grant 1 engine 1"]),
            (2, batch(2, "a"), ["grant 2 engine 1"]),
        ],
    )


def test_an_interactive_ticket_decides_the_next_start_though_a_batch_ticket_is_older() -> None:
    play(
        scheduler(A, B, C),
        [
            *loaded("a"),
            (1, batch(2, "b"), []),
            (2, arrive(3, "c"), ["drain 1"]),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start c:only as 2"]),
            (5, ready(2), ["grant 3 engine 2"]),
            (6, LeaseBack(2), ["stop 2"]),
            (7, EngineExited(2), ["start b:only as 3"]),
        ],
    )


def test_a_batch_ticket_makes_no_engine_give_way_that_interactive_ones_use() -> None:
    subject = scheduler(A, B, window_s=WINDOW_S)
    play(
        subject,
        [
            *loaded("a"),
            (1, batch(2, "b"), []),
            (50, arrive(3, "a"), []),
            (51, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )
    assert subject.next_deadline() == 101, "not before it has aged"
    play(subject, [(60, LeaseBack(1), ["stop 1"])])


def test_a_batch_ticket_makes_an_engine_give_way_that_only_batch_tickets_use() -> None:
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [
            (0, batch(1, "a"), ["start a:only as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (20, batch(2, "b"), []),
            (21, batch(3, "a"), []),
            (30, TimePassed(), ["drain 1"]),
        ],
    )


def test_batch_tickets_get_no_slot_while_an_interactive_one_waits_for_the_engines_room() -> None:
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [
            *loaded("a"),
            (1, batch(2, "a"), []),
            (2, arrive(3, "b"), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start b:only as 2"]),
            (5, ready(2), ["grant 3 engine 2"]),
        ],
    )


def test_batch_tickets_are_withheld_while_interactive_ones_use_the_window() -> None:
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [
            *loaded("a", slots=2),
            (2, arrive(3, "b"), []),
            (3, batch(4, "a"), []),
            (4, arrive(5, "a"), ["grant 5 engine 1"]),
        ],
    )


def test_batch_tickets_get_their_slots_again_when_nobody_waits_for_the_room_any_more() -> None:
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [
            *loaded("a", slots=2),
            (2, arrive(3, "b"), []),
            (3, batch(4, "a"), []),
            (4, TicketGone(3), ["grant 4 engine 1"]),
        ],
    )


def test_a_batch_ticket_that_has_waited_ten_windows_is_interactive() -> None:
    subject = scheduler(A, B, window_s=WINDOW_S)
    play(
        subject,
        [
            *loaded("a"),
            (1, batch(2, "a"), []),
            (90, arrive(3, "a"), []),
            (91, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )
    assert subject.next_deadline() == 101
    play(
        subject,
        [
            (101, TimePassed(), []),
            (102, arrive(4, "a"), []),
            (103, LeaseBack(1), ["grant 2 engine 1"]),
        ],
    )


def test_an_aged_batch_ticket_makes_a_busy_engine_give_way_at_once() -> None:
    """It has waited for more than the window."""
    play(
        scheduler(A, B, C, window_s=WINDOW_S),
        [
            *loaded("a"),
            (1, batch(2, "b"), []),
            (100, arrive(3, "c"), []),
            (101, TimePassed(), ["drain 1"]),
            (102, LeaseBack(1), ["stop 1"]),
            (103, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_a_load_that_only_a_batch_ticket_waits_for_is_finished_and_serves_it() -> None:
    """Else it would be loaded for nothing, again and again."""
    play(
        scheduler(A, B, window_s=WINDOW_S),
        [
            (0, batch(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (3, ready(1), ["grant 1 engine 1"]),
            (4, batch(3, "a"), []),
            (5, LeaseBack(1), ["stop 1"]),
        ],
    )
