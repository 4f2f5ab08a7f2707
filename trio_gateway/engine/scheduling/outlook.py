"""What a waiting ticket may expect: its place in the line, and a rough guess at its wait."""

from __future__ import annotations

import math

import msgspec

from trio_gateway.engine.scheduling.demands import PauseLeft, pause_left, start_for
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue


class Outlook(msgspec.Struct, frozen=True):
    """`position`: 1 is the next. `loading_s` and `load_s`: how long its engine has been loading,
    and how long that takes; None where nothing is loading for it. `pause`: what its engine is left
    alone for; `wait_s` includes it."""

    position: int
    wait_s: float
    loading_s: float | None = None
    load_s: float | None = None
    pause: PauseLeft | None = None


def outlook_of(ticket: Ticket, state: SchedulerState, window_s: float, now: float) -> Outlook:
    """For a ticket that waits, or one that would join the line now."""
    if state.engine_with_slot_for(ticket) is not None:
        return Outlook(1, 0.0)
    queue = state.queues.get(ticket.model, TicketQueue())
    ahead = queue.ahead_of(ticket) if ticket.id in state.tickets else len(queue)
    lease_s = state.forecast.lease_s(ticket.model)
    engine = state.server_of(ticket)
    if engine is None:
        choice = start_for(ticket, queue, state, now)
        facts, pause = choice.facts, pause_left(choice, now)
        slots = state.variants.slots_of(facts, ticket.need)
        others = _models_ahead(ticket, state, facts.pool, now)
        turns_s = sum(_turn_s(model, ticket, state, window_s, now) for model in others)
        # Others go on in a pause, so the two do not add up.
        wait_s = max(turns_s, pause.seconds if pause is not None else 0.0)
        wait_s += state.forecast.load_s(facts)
        wait_s += _until_a_slot_s(ahead, slots, slots, lease_s)
        ahead += sum(len(state.queues.get(model, ())) for model in others)
        return Outlook(ahead + 1, wait_s, pause=pause)
    slots = state.variants.slots_of(engine.facts, ticket.need)
    if engine.state is EngineState.STARTING:
        load_s, loading_s = state.forecast.load_s(engine.facts), now - engine.started_at
        wait_s = max(load_s - loading_s, 0.0)
        wait_s += _until_a_slot_s(ahead, slots, slots, lease_s)
        return Outlook(ahead + 1, wait_s, loading_s, load_s)
    return Outlook(ahead + 1, _until_a_slot_s(ahead, 0, slots, lease_s))


def _models_ahead(ticket: Ticket, state: SchedulerState, pool: str, now: float) -> list[str]:
    """Other models of the pool that have a turn before this ticket: those whose engines are busy,
    and those with an older ticket of the same or a higher priority, unless it waits for the end of
    a pause."""
    busy = {
        e.key.model
        for e in state.engines.values()
        if e.facts.pool == pool and (e.leases or e.state is EngineState.STARTING)
    }
    waiting = {
        model
        for model, queue in state.queues.items()
        if state.variants[model][0].pool == pool
        and (oldest := queue.oldest()) is not None
        and (oldest.priority, oldest.id) < (ticket.priority, ticket.id)
        and not _is_paused(oldest, queue, state, now)
    }
    return sorted((busy | waiting) - {ticket.model})


def _is_paused(ticket: Ticket, queue: TicketQueue, state: SchedulerState, now: float) -> bool:
    if state.server_of(ticket) is not None:
        return False
    return start_for(ticket, queue, state, now).pause is not None


def _turn_s(
    model: str, ticket: Ticket, state: SchedulerState, window_s: float, now: float
) -> float:
    """What is left of another model's turn, or what it will take."""
    lease_s = state.forecast.lease_s(model)
    window_s = window_s if math.isfinite(window_s) else lease_s
    running = [e for e in state.engines_of(model) if e.ready_at is not None]
    if not running:
        return state.forecast.load_s(state.variants[model][0]) + window_s + lease_s
    if not any(e.serving for e in running):
        return lease_s
    begun = max(ticket.arrived_at, *(e.ready_at or 0.0 for e in running))
    return max(begun + window_s - now, 0.0) + lease_s


def _until_a_slot_s(ahead: int, free: int, slots: int, lease_s: float) -> float:
    behind = ahead + 1 - free
    return math.ceil(behind / max(slots, 1)) * lease_s if behind > 0 else 0.0
