"""Demands: the starts that waiting tickets need, in the order in which they are to be looked at.

A model's tickets that none of its engines will serve are one demand, as it is started once, for all
of them. The variant is the smallest that holds the largest need among them and its room to grow. If
that one is left alone for now, the smallest that holds the needs has to do: no ticket is refused
for room that is only wished for.

The order is the highest priority first, then the one that has waited longest. A demand counts its
waiting from its oldest ticket's arrival, or from the end of its model's last turn if that is later:
a model that had a turn goes to the end of the line, so each demand waits for each other model once.
"""

from __future__ import annotations

import math

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.back_off import Pause
from trio_gateway.engine.scheduling.events import (
    Refusal,
    Reject,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue


class Demand(msgspec.Struct, frozen=True):
    """A start that is needed: of `facts`, for tickets of which the deciding one is of this
    `priority`, and in line `since` then, in this `place`. The tickets are those with a size above
    `above` and up to `size`: any engine of that context serves them all."""

    facts: VariantFacts
    priority: Priority
    since: float
    place: int
    size: int
    above: int = 0


class Choice(msgspec.Struct, frozen=True):
    """The variant to start, and the `pause` in which it is left alone, if any. It stands until
    `until`, when a larger one that is wished for may be started again."""

    facts: VariantFacts
    pause: Pause | None
    until: float = math.inf


class _Known(msgspec.Struct, frozen=True):
    """What was found for one model, and the versions of what it was found from."""

    queue_version: int
    engines_version: int
    demand: Demand | None
    until: float


class Demands:
    """An event changes one model's queue, so what was found for the others is kept: looking at all
    of 20 models took 170 µs an event, four times as long."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._known: dict[str, _Known] = {}

    def now(self, now: float) -> tuple[list[Demand], list[Reject]]:
        """The demands in their order, and the tickets whose variant is left alone for now."""
        demands: list[Demand] = []
        rejects: list[Reject] = []
        version = self._state.engines_version
        for model, queue in self._state.queues.items():
            known = self._known.get(model)
            if (
                known is None
                or known.queue_version != queue.version
                or known.engines_version != version
                or known.until <= now
            ):
                demand, until = self._find(model, queue, now, rejects)
                known = self._known[model] = _Known(queue.version, version, demand, until)
            if known.demand is not None:
                demands.append(known.demand)
        demands.sort(key=_order)
        return demands, rejects

    def _find(
        self, model: str, queue: TicketQueue, now: float, rejects: list[Reject]
    ) -> tuple[Demand | None, float]:
        state = self._state
        served = state.served(model)
        for size in queue.sizes():
            if size <= served:
                break
            start_size = queue.largest_start_size(above=served, up_to=size)
            choice = choose(state, model, size, start_size, now)
            if choice.pause is None:
                decider = queue.oldest(above=served, up_to=size)
                assert decider is not None, "the queue has a ticket of this size"
                line = state.in_line(decider)
                return Demand(choice.facts, decider.priority, *line, size, served), choice.until
            rejects += [
                _backing_off(ticket, choice.facts.key, choice.pause, now)
                for ticket in queue.of_size(size)
            ]
        return None, math.inf


def choose(state: SchedulerState, model: str, size: int, start_size: int, now: float) -> Choice:
    """What to start for tickets up to this size, of which the largest start size is this one."""
    wished = state.variants.smallest_holding(model, start_size)
    assert wished is not None, "a start size is a context of the model"
    pause = state.back_off.pause(wished.key, now)
    if pause is None or start_size <= size:
        return Choice(wished, pause)
    needed = state.variants.smallest_holding(model, size)
    assert needed is not None, "a size is a context of the model"
    return Choice(needed, state.back_off.pause(needed.key, now), pause.until)


def reason_of(demand: Demand, queue: TicketQueue) -> str:
    """Why it is started, for the log."""
    waiting = "1 request waits" if len(queue) == 1 else f"{len(queue)} requests wait"
    tickets = [ticket for ticket in queue if demand.above < ticket.size <= demand.size]
    need = max(ticket.need for ticket in tickets)
    start_need = max(ticket.start_need for ticket in tickets)
    headroom = f" ({start_need} with headroom)" if start_need > need else ""
    return f"{waiting}; the largest needs {need} tokens{headroom}"


def _order(demand: Demand) -> tuple[Priority, int]:
    return demand.priority, demand.place


def _backing_off(ticket: Ticket, key: VariantKey, pause: Pause, now: float) -> Reject:
    left_s = pause.until - now
    times = "once" if pause.failures == 1 else f"{pause.failures} times in a row"
    message = (
        f"{key} failed {times}; the next start is in {left_s:.1f} s. Last failure: {pause.reason}"
    )
    return Reject(ticket.id, Refusal.BACK_OFF, message, left_s)
