"""Demands: the starts that waiting tickets need, in the order in which they are to be looked at.

A model's tickets that none of its engines will serve are one demand, as it is started once, for all
of them. The variant is the smallest that holds the largest need among them and its room to grow. If
that one is left alone for now, the smallest that holds the needs has to do: no ticket is refused
for room that is only wished for. If both are left alone, the tickets wait for the one that may be
started first, unless that takes too long. Until then they are no demand, and in nobody's way.

The order is the highest priority first, then the one that has waited longest. A demand counts its
waiting from its oldest ticket's arrival, or from the end of its model's last turn if that is later:
a model that had a turn goes to the end of the line, so each demand waits for each other model once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.back_off import Pause
from trio_gateway.engine.scheduling.deadlines import Deadlines
from trio_gateway.engine.scheduling.events import (
    Refusal,
    Reject,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.state import SchedulerState, in_line
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
    `until`: the pause is over, or a larger one that is wished for may be started again."""

    facts: VariantFacts
    pause: Pause | None
    until: float = math.inf


class PauseLeft(msgspec.Struct, frozen=True):
    """The variant is left alone for this long, as it failed that often, last for this reason and
    after this output. `is_waited_out`: a ticket waits for its end; otherwise it is refused."""

    key: VariantKey
    seconds: float
    failures: int
    reason: str
    is_waited_out: bool
    output: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Without the reason."""
        times = "once" if self.failures == 1 else f"{self.failures} times in a row"
        return f"{self.key} failed {times}; the next start is in {self.seconds:.1f} s"


class _Known(msgspec.Struct, frozen=True):
    """What was found for one model. It stands until then. `resumes_at`: when the next pause ends
    that some of its tickets wait for."""

    demand: Demand | None
    until: float
    resumes_at: float


class Changed(msgspec.Struct):
    """What is another thing in the order of a pool's demands: nothing before this place, and the
    demands of these models."""

    first: int
    models: set[str]


class Demands:
    """An event changes one model's queue or engines, so what was found for the others is kept.

    `changed`: by pool, and `ended`: models that have none any more, until somebody takes note.

    Args:
        touched: names the models that are to be looked at (`touched.py`); by default, all that
            tickets wait for, once.
    """

    def __init__(self, state: SchedulerState, touched: set[str] | None = None) -> None:
        self._state = state
        self._touched = {*state.queues} if touched is None else touched
        self._of_model: dict[str, Demand] = {}
        # By pool, sorted, and the demands in the same order.
        self._order: dict[str, list[tuple[Priority, int]]] = {}
        self._in_order: dict[str, list[Demand]] = {}
        self.changed: dict[str, Changed] = {}
        self.ended: set[str] = set()
        self._until, self._resumes_at = Deadlines(), Deadlines()

    def now(self, now: float) -> tuple[Sequence[Demand], list[Reject], float]:
        """The demands in their order; the tickets whose variant is left alone for long; and when
        the next pause ends that tickets wait for."""
        found = self.find(now)
        return self.in_pools(self._in_order), *found

    def of_pool(self, pool: str) -> Sequence[Demand]:
        """As they were found last, in their order."""
        return self._in_order.get(pool, ())

    def in_pools(self, pools: Iterable[str]) -> Sequence[Demand]:
        """The same of several pools."""
        found = [self.of_pool(pool) for pool in pools]
        return found[0] if len(found) == 1 else sorted(chain(*found), key=order_of)

    def find(self, now: float) -> tuple[list[Reject], float]:
        """As of `now`, without the demands."""
        rejects: list[Reject] = []
        self._touched.update(self._until.take_due(now))
        for model in in_line(self._touched, self._state):
            queue = self._state.queues.get(model)
            known = _NOTHING if queue is None else self._find(model, queue, now, rejects)
            self._note(model, known)
        self._touched.clear()
        return rejects, self._resumes_at.next()

    def _note(self, model: str, known: _Known) -> None:
        self._until.set(model, known.until)
        self._resumes_at.set(model, known.resumes_at)
        before, demand = self._of_model.get(model), known.demand
        if demand == before:
            return
        if before is not None:
            pool = before.facts.pool
            at = bisect_left(self._order[pool], order_of(before))
            del self._of_model[model], self._order[pool][at], self._in_order[pool][at]
            self._note_change(pool, at, model)
            if demand is None:
                self.ended.add(model)
        if demand is not None:
            pool = demand.facts.pool
            order = self._order.setdefault(pool, [])
            at = bisect_left(order, order_of(demand))
            order.insert(at, order_of(demand))
            self._in_order.setdefault(pool, []).insert(at, demand)
            self._of_model[model] = demand
            self._note_change(pool, at, model)

    def _note_change(self, pool: str, at: int, model: str) -> None:
        if (change := self.changed.get(pool)) is None:
            self.changed[pool] = Changed(at, {model})
        else:
            change.first = min(change.first, at)
            change.models.add(model)

    def _find(self, model: str, queue: TicketQueue, now: float, rejects: list[Reject]) -> _Known:
        state = self._state
        served, resumes_at = state.served(model), math.inf
        for size in queue.sizes():
            if size <= served:
                break
            start_size = queue.largest_start_size(above=served, up_to=size)
            choice = choose(state, model, size, start_size, now)
            if choice.pause is None:
                decider = queue.oldest(above=served, up_to=size)
                assert decider is not None, "the queue has a ticket of this size"
                line = state.in_line(decider)
                demand = Demand(choice.facts, decider.priority, *line, size, served)
                return _Known(demand, min(choice.until, resumes_at), resumes_at)
            if choice.pause.is_waited_out(now):
                resumes_at = min(resumes_at, choice.until)
                continue
            left = _left(choice.facts.key, choice.pause, now)
            rejects += [_backing_off(ticket, left) for ticket in queue.of_size(size)]
        return _Known(None, resumes_at, resumes_at)


_NOTHING = _Known(None, math.inf, math.inf)


def choose(state: SchedulerState, model: str, size: int, start_size: int, now: float) -> Choice:
    """What to start for tickets up to this size, of which the largest start size is this one."""
    wished = state.variants.smallest_holding(model, start_size)
    assert wished is not None, "a start size is a context of the model"
    pause = state.back_off.pause(wished.key, now)
    if pause is None:
        return Choice(wished, None)
    if start_size <= size:
        return Choice(wished, pause, pause.until)
    needed = state.variants.smallest_holding(model, size)
    assert needed is not None, "a size is a context of the model"
    its_pause = state.back_off.pause(needed.key, now)
    if its_pause is not None and pause.until < its_pause.until:
        return Choice(wished, pause, pause.until)
    return Choice(needed, its_pause, pause.until if its_pause is None else its_pause.until)


def start_for(ticket: Ticket, queue: TicketQueue, state: SchedulerState, now: float) -> Choice:
    """What is to be started for a ticket that no engine serves: for it and those that wait with
    it. `queue` is its model's, in which it may be itself."""
    served = state.served(ticket.model)
    for size in sorted({ticket.size, *queue.sizes()}, reverse=True):
        start_size = queue.largest_start_size(above=served, up_to=size)
        if size >= ticket.size:
            start_size = max(start_size, ticket.start_size)
        choice = choose(state, ticket.model, size, start_size, now)
        if choice.pause is None or size == ticket.size:
            return choice
    raise AssertionError("its own size is among them")


def pause_left(choice: Choice, now: float) -> PauseLeft | None:
    """What is left of the pause of what is to be started."""
    return None if choice.pause is None else _left(choice.facts.key, choice.pause, now)


def reason_of(demand: Demand, queue: TicketQueue) -> str:
    """Why it is started, for the log."""
    waiting = "1 request waits" if len(queue) == 1 else f"{len(queue)} requests wait"
    tickets = [t for t in queue.in_line() if demand.above < t.size <= demand.size]
    need = max(ticket.need for ticket in tickets)
    start_need = max(ticket.start_need for ticket in tickets)
    headroom = f" ({start_need} with headroom)" if start_need > need else ""
    return f"{waiting}; the largest needs {need} tokens{headroom}"


def order_of(demand: Demand) -> tuple[Priority, int]:
    return demand.priority, demand.place


def _left(key: VariantKey, pause: Pause, now: float) -> PauseLeft:
    left_s = pause.until - now
    waited_out = pause.is_waited_out(now)
    return PauseLeft(key, left_s, pause.failures, pause.reason, waited_out, pause.output)


def _backing_off(ticket: Ticket, left: PauseLeft) -> Reject:
    message = f"{left}. Last failure: {left.reason}"
    return Reject(ticket.id, Refusal.BACK_OFF, message, left.seconds, left.output)
