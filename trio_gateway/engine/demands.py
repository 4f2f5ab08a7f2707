"""Demands: the starts that waiting tickets need, in the order in which they are to be looked at.

A model's tickets that none of its engines will serve are one demand, for the smallest variant that
holds the largest need that waits for the model: it is started once, for all of them.

The order is the highest priority first, then the one that has waited longest. A demand counts its
waiting from its oldest ticket's arrival, or from the end of its model's last turn if that is later:
whoever had a turn goes to the end of the line, so each demand waits for each other model once.
"""

from __future__ import annotations

import msgspec

from trio_gateway.engine.back_off import Pause
from trio_gateway.engine.events import Priority, Refusal, Reject, VariantFacts, VariantKey
from trio_gateway.engine.scheduler_state import SchedulerState
from trio_gateway.engine.ticket_queue import Ticket, TicketQueue


class Demand(msgspec.Struct, frozen=True):
    """A start that is needed: of `facts`, for tickets of which the deciding one is of this
    `priority`, and in line `since` then, in this `place`."""

    facts: VariantFacts
    priority: Priority
    since: float
    place: int


class _Known(msgspec.Struct, frozen=True):
    """What was found for one model, and the versions of what it was found from."""

    queue_version: int
    engines_version: int
    demand: Demand | None


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
            if known is None or (known.queue_version, known.engines_version) != (
                queue.version,
                version,
            ):
                demand = self._find(model, queue, now, rejects)
                known = self._known[model] = _Known(queue.version, version, demand)
            if known.demand is not None:
                demands.append(known.demand)
        demands.sort(key=_order)
        return demands, rejects

    def _find(
        self, model: str, queue: TicketQueue, now: float, rejects: list[Reject]
    ) -> Demand | None:
        state = self._state
        served = max((e.context for e in state.engines_of(model) if e.serving), default=0)
        for size in queue.sizes():
            if size <= served:
                break
            facts = state.smallest_holding(model, size)
            assert facts is not None, "a ticket's size is a context of its model"
            pause = state.back_off.pause(facts.key, now)
            if pause is None:
                decider = queue.oldest(above=served, up_to=size)
                assert decider is not None, "the queue has a ticket of this size"
                return Demand(facts, decider.priority, *state.in_line(decider))
            rejects += [
                _backing_off(ticket, facts.key, pause, now) for ticket in queue.of_size(size)
            ]
        return None


def _order(demand: Demand) -> tuple[Priority, int]:
    return demand.priority, demand.place


def _backing_off(ticket: Ticket, key: VariantKey, pause: Pause, now: float) -> Reject:
    left_s = pause.until - now
    times = "once" if pause.failures == 1 else f"{pause.failures} times in a row"
    message = (
        f"{key} failed {times}, the next start is tried in {left_s:.1f} s. Last failure: "
        f"{pause.reason}"
    )
    return Reject(ticket.id, Refusal.BACK_OFF, message, left_s)
