"""Whether a ticket may wait: what those are told that may not. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from trio_gateway.engine.scheduling.back_off import Pause
from trio_gateway.engine.scheduling.engine_view import HeldLease
from trio_gateway.engine.scheduling.events import EngineFailed, Refusal, Reject, TicketArrived
from trio_gateway.engine.scheduling.outlook import outlook_of
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.ticket_queue import Counting, Ticket
from trio_gateway.engine.scheduling.variants import ModelGone
from trio_gateway.engine.scheduling.waiting import Waiting
from trio_gateway.engine.scheduling.words import lack

RETRY_S = 10.0  # where the wait is not known


def full_for(
    ticket: Ticket,
    state: SchedulerState,
    window_s: float,
    now: float,
    queue_limit: int,
    queue_timeout_s: float,
) -> Reject | None:
    """Why it may not wait. What is only read is cheap, and comes by the hundred when a page
    takes in a file: it is not counted, but the seconds that all of it will take are."""
    if ticket.read_bytes is None:
        if state.generating < queue_limit:
            return None
        message = f"{state.generating} requests are already waiting (queue_limit); try again later"
        wait_s = outlook_of(ticket, state, window_s, now).wait_s
        retry_s = RETRY_S if wait_s is None else wait_s
        return Reject(ticket.id, Refusal.QUEUE_FULL, message, retry_s)
    variant = state.variants.smallest_holding(ticket.model, ticket.size)
    assert variant is not None, "a size is a context of the model"
    took_s = state.forecast.reading_s(ticket.model, _to_read_with(ticket, state))
    if took_s is None:
        return None  # nothing is known of it yet
    reading_s = took_s / state.variants.slots_of(variant, ticket.need)
    if reading_s <= queue_timeout_s:
        return None
    message = (
        f"what waits for {ticket.model} before this request would take {reading_s:.0f} s to read "
        f"with it, and none waits for longer than {queue_timeout_s:g} s (queue_timeout); try again "
        "later"
    )
    retry_s = reading_s - queue_timeout_s
    return Reject(ticket.id, Refusal.QUEUE_FULL, message, retry_s)


def _to_read_with(ticket: Ticket, state: SchedulerState) -> int:
    """Bytes that are read until this ticket is: clients take turns, so of each other one no more
    than its own client has. So one that sends a whole library leaves room for the others."""
    of_model = state.to_read.get(ticket.model, {})
    own = of_model.get(ticket.client, 0) + (ticket.read_bytes or 0)
    others = (size for client, size in of_model.items() if client != ticket.client)
    return own + sum(min(size, own) for size in others)


def too_large(ticket: Ticket, state: SchedulerState) -> Reject:
    largest = max(state.variants.contexts(ticket.model))
    message = (
        f"no variant of {ticket.model} holds {ticket.need} tokens: this model's maximum context "
        f"length is {largest} tokens"
    )
    return Reject(ticket.id, Refusal.TOO_LARGE, message)


def not_started(ticket: Ticket, event: EngineFailed, pause: Pause | None, now: float) -> Reject:
    """What waited for an engine that did not start."""
    refusal, retry_s = Refusal.START_FAILED, None
    if event.unavailable:
        refusal, retry_s = Refusal.UNAVAILABLE, RETRY_S if pause is None else pause.until - now
    elif event.timed_out:
        refusal = Refusal.START_TIMEOUT
    return Reject(ticket.id, refusal, event.reason, retry_s, event.output)


def model_gone(ticket: Ticket) -> Reject:
    return Reject(ticket.id, Refusal.MODEL_GONE, str(ModelGone(ticket.model)))


def shutting_down(ticket: Ticket) -> Reject:
    return Reject(ticket.id, Refusal.SHUTTING_DOWN, "the gateway is stopping")


def timed_out(ticket: Ticket, waiting: Waiting, timeout_s: float) -> Reject:
    output: tuple[str, ...] = ()
    message, retry_s = f"no engine was free within {timeout_s:g} s (queue_timeout)", None
    if (pause := waiting.outlook.pause) is not None:
        output, message = pause.output, f"{message}; {pause}. Last failure: {pause.reason}"
    elif waiting.shortage is not None:
        message, retry_s = f"{message}; {lack(waiting.shortage, ticket.model)}", RETRY_S
    return Reject(ticket.id, Refusal.QUEUE_TIMEOUT, message, retry_s, output)


def older(tickets: Mapping[int, Ticket], than_s: float, now: float) -> Iterator[Ticket]:
    """Those that have waited that long; `tickets` are in the order of their arrival."""
    for ticket in tickets.values():
        if ticket.arrived_at + than_s > now:
            return
        yield ticket


def next_older(tickets: Mapping[int, Ticket], than_s: float) -> float:
    """When the next of them has waited that long; infinite: there is none."""
    for ticket in tickets.values():
        return ticket.arrived_at + than_s
    return math.inf


def lease_of(event: TicketArrived, now: float) -> HeldLease:
    """Of a ticket that need not wait."""
    least, counting = event.need, Counting.DONE
    if event.least_need is not None:
        least, counting = event.least_need, Counting.OPEN
    return HeldLease(
        now, event.priority, event.need, least, counting, event.read_bytes, event.progress
    )


def ticket_of(event: TicketArrived, now: float) -> Ticket:
    ticket = Ticket(event.ticket, event.model, event.need, event.client, event.priority, now)
    ticket.start_need = event.start_need
    ticket.read_bytes, ticket.progress = event.read_bytes, event.progress
    if event.least_need is None:
        ticket.least_need = event.need
    else:
        ticket.least_need, ticket.counting = event.least_need, Counting.OPEN
    return ticket
