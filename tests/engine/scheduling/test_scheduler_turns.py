"""Whose turn it is when several clients wait for the slots of one engine."""

from __future__ import annotations

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    LeaseBack,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
)
from trio_gateway.engine.scheduling.events import (
    Grant,
    LeaseReturned,
    TicketGone,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler


def served(subject: Scheduler, grants: int) -> list[int]:
    """The tickets that the engine's only slot goes to, one after the other."""
    order = []
    for number in range(grants):
        (lease,) = subject.state.engines[1].leases
        (grant,) = subject.handle(LeaseReturned(lease), 10 + number)
        assert isinstance(grant, Grant)
        order.append(grant.ticket)
    return order


def test_one_clients_hundred_tickets_do_not_hold_back_anothers_one() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    play(subject, [(1, arrive(n, "a", client="hoarder"), []) for n in range(2, 102)])
    play(subject, [(2, arrive(200, "a", client="person"), [])])
    assert served(subject, 4) == [2, 200, 3, 4]


def test_turns_go_round_the_clients() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    tickets = [(2, "x"), (3, "x"), (4, "x"), (5, "y"), (6, "y"), (7, "z"), (8, "x")]
    play(subject, [(1, arrive(number, "a", client=client), []) for number, client in tickets])
    assert served(subject, 7) == [2, 5, 7, 3, 6, 4, 8]


def test_a_client_with_one_request_at_a_time_alternates_with_one_that_hoards() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    play(subject, [(1, arrive(n, "a", client="hoarder"), []) for n in range(2, 102)])
    order = []
    for number in range(200, 205):
        subject.handle(arrive(number, "a", client="person"), 2)
        order += served(subject, 2)
    assert order == [2, 200, 3, 201, 4, 202, 5, 203, 6, 204]


def test_the_turns_of_batch_tickets_go_round_the_clients_as_well() -> None:
    subject = scheduler(A, window_s=10)
    play(subject, loaded("a"))
    tickets = [(2, "x"), (3, "x"), (4, "y")]
    play(subject, [(1, batch(number, "a", client=client), []) for number, client in tickets])
    play(subject, [(1, arrive(5, "a", client="z"), [])])
    assert served(subject, 4) == [5, 2, 4, 3]


def test_a_turn_passes_over_tickets_that_the_engine_does_not_hold() -> None:
    play(
        scheduler(*GROWING, window_s=100),
        [
            (0, arrive(1, "a", client="x"), ["start a:small as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a", LARGE, client="y"), []),
            (3, arrive(3, "a", client="x"), []),
            (4, LeaseBack(1), ["grant 3 engine 1"]),
        ],
    )


def test_turns_that_a_client_gave_up_are_not_held_against_it() -> None:
    subject = scheduler(A)
    play(subject, loaded("a"))
    play(subject, [(1, arrive(n, "a", client="impatient"), []) for n in range(2, 50)])
    play(subject, [(2, TicketGone(n), []) for n in range(2, 50)])
    play(subject, [(3, arrive(100, "a", client="other"), [])])
    play(subject, [(3, arrive(101, "a", client="other"), [])])
    play(subject, [(4, arrive(102, "a", client="impatient"), [])])
    assert served(subject, 3) == [100, 102, 101]
