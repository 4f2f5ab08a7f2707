"""Recounts: which needs are worth an exact count, now that an engine of their model can tell.

A need that was found without an engine may be a bound or an estimate, several times too large. It
is counted again where that can change something, and once only:

- before an engine is started for it while another one of its model runs or starts. The ticket is
  *held* meanwhile: it is no demand, and in nobody's way. It waits for an engine that starts for as
  long as two loads of it take, and for its count as long as one question to an engine may take;
- before it waits for the tokens that the slots of an engine share, together with the needs of the
  leases there, if they might all fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from trio_gateway.engine.scheduling.deadlines import Deadlines
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import Action, CountAgain
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState, in_line
from trio_gateway.engine.scheduling.ticket_queue import Counting, Ticket, TicketQueue

COUNT_LIMIT_S = 10.0
PATIENCE_LOADS = 2.0


class Teller(NamedTuple):
    """The engine that is to count a ticket's need, and how long it is waited for."""

    engine: EngineView
    until: float


class _Looked(msgspec.Struct, frozen=True):
    """Up to which ticket a model's were looked at, with the engines of which version, and when the
    first of them has been held for long enough."""

    newest: int
    engines_version: int
    until: float


class Recounts:
    """Marks the tickets and leases that it asks for, and holds tickets."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._touched = state.touched.new_list()
        self._looked: dict[str, _Looked] = {}
        self._until = Deadlines()
        self._uncounted: set[str] = set()  # models that have tickets to be counted
        self._engines_version = state.engines_version

    def hold(self, now: float, actions: list[Action]) -> float:
        """Hold the tickets that are to be counted before anything is started for them, and let go
        of the others; when the first of them has been held for long enough."""
        queues, models = self._state.queues, self._touched
        models.update(self._until.take_due(now))
        if self._engines_version != self._state.engines_version:
            # Each may have another teller. Mostly none is to be counted.
            self._engines_version = self._state.engines_version
            models.update(self._uncounted, self._until.names())
        for model in in_line(models, self._state):
            if (queue := queues.get(model)) is None:
                self._uncounted.discard(model)
                self._until.set(model, math.inf)
                continue
            self._until.set(model, self._look(model, queue, now, actions).until)
            note = self._uncounted.add if queue.has_uncounted else self._uncounted.discard
            note(model)
        models.clear()
        return self._until.next()

    def _look(self, model: str, queue: TicketQueue, now: float, actions: list[Action]) -> _Looked:
        """At the newcomers, unless it is another thing that has changed."""
        version, newest, held_until = self._state.engines_version, 0, math.inf
        looked = self._looked.get(model)
        if looked is not None and looked.engines_version == version and looked.until > now:
            newest, held_until = looked.newest, looked.until
        tickets = queue.uncounted(newest)
        for ticket in tickets:
            teller = teller_of(ticket, self._state, now)
            if teller is None:
                if ticket.counting is Counting.ASKED and ticket.asked_at + COUNT_LIMIT_S <= now:
                    ticket.counting, ticket.least_need = Counting.DONE, ticket.need
                queue.release(ticket)
                continue
            if teller.engine.state is EngineState.READY and ticket.counting is Counting.OPEN:
                ticket.counting, ticket.asked_at = Counting.ASKED, now
                actions.append(CountAgain(ticket.id))
            queue.hold(ticket)
            held_until = min(held_until, teller.until)
        newest = tickets[-1].id if tickets else newest
        looked = self._looked[model] = _Looked(newest, version, held_until)
        return looked

    def for_room(
        self, ticket: Ticket, engine: EngineView, now: float, actions: list[Action]
    ) -> None:
        """The ticket needs more of the engine's shared tokens than are left."""
        assert engine.shared_tokens is not None
        least = ticket.least_need + sum(lease.least_need for lease in engine.leases.values())
        if least > engine.shared_tokens:
            return  # whatever the counts say
        if ticket.counting is Counting.OPEN:
            ticket.counting, ticket.asked_at = Counting.ASKED, now
            actions.append(CountAgain(ticket.id))
        for number, lease in [*engine.leases.items()]:
            if lease.counting is Counting.OPEN:
                asked = msgspec.structs.replace(lease, counting=Counting.ASKED)
                engine.leases[number] = asked
                actions.append(CountAgain(number))


def teller_of(ticket: Ticket, state: SchedulerState, now: float) -> Teller | None:
    """Who is to count a ticket's need before anything is started for it, if anybody is."""
    if ticket.counting is Counting.DONE:
        return None
    least_size = state.variants.size_for(ticket.model, ticket.least_need)
    if least_size is None or least_size >= ticket.size:
        return None  # no count could change what is started
    serving = [e for e in state.engines_of(ticket.model) if e.serving]
    if any(e.context >= ticket.size for e in serving):
        return None  # nothing is
    ready = [e for e in serving if e.state is EngineState.READY]
    if ready:
        asked_at = now if ticket.counting is Counting.OPEN else ticket.asked_at
        until = asked_at + COUNT_LIMIT_S
        return Teller(ready[-1], until) if until > now else None
    if ticket.counting is Counting.ASKED or ticket.model in state.uncounting:
        return None
    tellers = [
        Teller(e, e.started_at + PATIENCE_LOADS * state.forecast.load_s(e.facts))
        for e in serving
        if e.context >= least_size
    ]
    patient = [teller for teller in tellers if teller.until > now]
    return max(patient, key=lambda teller: teller.until, default=None)
