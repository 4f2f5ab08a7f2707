"""What an event costs: no more with a long line than with a short one.

Counted are the calls of Python and C functions, which no load of the machine changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.support.scheduler_tables import arrive, batch, ready, scheduler, variant
from trio_gateway.engine.scheduling.events import (
    Event,
    LeaseReturned,
    TicketArrived,
    TicketGone,
    TimePassed,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler

FEW, MANY = 10, 1000
GROWTH = 2.0  # the logarithm of a line a hundred times as long, and no more
LAST = 10_000  # number of a ticket that comes after all others

Line = Callable[[int, int], TicketArrived]


def one_client(number: int, among: int) -> TicketArrived:
    return arrive(number, "a", client="hoarder")


def a_client_each(number: int, among: int) -> TicketArrived:
    return arrive(number, "a", client=f"client {number}")


def in_batch(number: int, among: int) -> TicketArrived:
    return batch(number, "a", client=f"client {number % 7}")


def other_models(number: int, among: int) -> TicketArrived:
    return arrive(number, "abcdefgh"[number % 8], client=f"client {number % 7}")


def other_sizes(number: int, among: int) -> TicketArrived:
    return arrive(number, "a", 100 + 3900 * number // among, client=f"client {number % 7}")


def uncounted(number: int, among: int) -> TicketArrived:
    """They wait for their counts, which nobody gives here."""
    return arrive(number, "a", 4000, client=f"client {number % 7}", least=1)


def waiting(line: Line, length: int, now: float) -> Scheduler:
    """So many wait at a ready engine of `a` with one slot, which ticket 1 has, since time 0."""
    variants = [variant(f"{model}:{k}", k * 1000) for model in "abcdefgh" for k in (1, 4)]
    subject = scheduler(*variants, queue_limit=LAST, window_s=30)
    subject.handle(arrive(1, "a"), 0)
    subject.handle(ready(1), 0)
    for number in range(2, length + 2):
        subject.handle(line(number, length), 1)
    subject.handle(arrive(LAST - 1, "b", client="person"), 2)
    subject.handle(TicketGone(0), now)
    return subject


def calls(subject: Scheduler, event: Event, now: float) -> int:
    counted = 0

    def count(frame: object, kind: str, argument: object) -> None:
        nonlocal counted
        counted += kind in ("call", "c_call")

    sys.setprofile(count)
    try:
        subject.handle(event, now)
        subject.next_deadline()
    finally:
        sys.setprofile(None)
    return counted


EVENTS: dict[str, Callable[[], Event]] = {
    "arrival": lambda: arrive(LAST, "a", client="newcomer"),
    "arrival elsewhere": lambda: arrive(LAST, "c", client="newcomer"),
    "return": lambda: LeaseReturned(1),
    "leaving": lambda: TicketGone(5),
    "timer": TimePassed,
}


@pytest.mark.parametrize("now", [3.0, 33.0], ids=["in the window", "after the window"])
@pytest.mark.parametrize(
    "line", [one_client, a_client_each, in_batch, other_models, other_sizes, uncounted]
)
@pytest.mark.parametrize("event", EVENTS)
def test_the_work_for_an_event_does_not_grow_with_the_line(
    event: str, line: Line, now: float
) -> None:
    few, many = (calls(waiting(line, length, now), EVENTS[event](), now) for length in (FEW, MANY))
    assert many <= GROWTH * few
