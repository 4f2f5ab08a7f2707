"""Who is granted an engine, which engine is started, which is stopped: decisions, no effects.

Events go in through `Scheduler.handle`, actions come out; the clock is an argument. Nothing here
waits, reads a file or talks to a process, so every rule can be tested with plain values.

The rules, for now first come, first served, per pool:

- A ticket whose engine is ready, large enough, not draining and has a free place is granted.
- Tickets for an engine without a free place wait in order; so do tickets for one that starts.
- Otherwise the ticket needs a start. A pool with room starts the smallest variant that holds the
  need; a full one gives up an engine: an idle one first (pinned last, least recently used first),
  else it drains one. An engine that an earlier ticket waits for is never given up.
- A smaller engine of the same model is the first to be given up when the model has to grow.
- Two variants with the same fixed address never run at the same time, whatever their pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from trio_gateway.engine.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Refusal,
    Reject,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.lifecycle import EngineState, move

BACK_OFF_FIRST_S = 1.0
BACK_OFF_LONGEST_S = 30.0


# -- state ----------------------------------------------------------------------------------


class Ticket(msgspec.Struct):
    id: int
    model: str
    need: int
    arrived_at: float


class EngineView(msgspec.Struct):
    """An engine as the scheduler sees it. `leases` counts grants not yet returned."""

    id: int
    facts: VariantFacts
    context: int
    places: int = 0
    state: EngineState = EngineState.STARTING
    leases: int = 0
    used_at: float = 0.0

    def serves(self, ticket: Ticket) -> bool:
        return (
            self.facts.key.model == ticket.model
            and self.context >= ticket.need
            and self.state in (EngineState.STARTING, EngineState.READY)
        )

    @property
    def leaving(self) -> bool:
        return self.state in (EngineState.DRAINING, EngineState.STOPPING)


class BackOff(msgspec.Struct):
    failures: int
    until: float
    reason: str


class Scheduler:
    """See the module's text. `variants` must be sorted by context within each model."""

    def __init__(
        self,
        variants: Sequence[VariantFacts],
        pool_limits: Mapping[str, int],
        *,
        queue_limit: int = 256,
        queue_timeout_s: float = 600.0,
    ) -> None:
        self._variants: dict[str, list[VariantFacts]] = {}
        for facts in variants:
            self._variants.setdefault(facts.key.model, []).append(facts)
        self._limits = dict(pool_limits)
        self._queue_limit = queue_limit
        self._queue_timeout_s = queue_timeout_s
        self.tickets: dict[int, Ticket] = {}  # in order of arrival
        self.engines: dict[int, EngineView] = {}  # those that are not gone
        self._back_off: dict[VariantKey, BackOff] = {}
        self._real_contexts: dict[VariantKey, int] = {}
        self._next_engine = 1
        self._closing = False

    def __repr__(self) -> str:
        return f"Scheduler(tickets={[*self.tickets.values()]}, engines={[*self.engines.values()]})"

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time `now` (seconds, any monotonic clock); what to do about it."""
        actions: list[Action] = []
        match event:
            case TicketArrived():
                self._arrive(event, now, actions)
            case TicketGone(ticket):
                self.tickets.pop(ticket, None)
            case EngineReady(engine, places, context):
                self._ready(self.engines[engine], places, context, now)
            case EngineFailed():
                self._failed(event, now, actions)
            case EngineExited(engine):
                self._gone(engine)
            case LeaseReturned(engine):
                # The engine may be gone: a lease outlives a crash until its request notices.
                if (view := self.engines.get(engine)) is not None:
                    view.leases -= 1
                    view.used_at = now
            case TimePassed():
                self._expire(now, actions)
            case ShutDown():
                self._close(actions)
        self._decide(now, actions)
        return actions

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due next, or None."""
        oldest = next(iter(self.tickets.values()), None)
        deadlines = [oldest.arrived_at + self._queue_timeout_s] if oldest else []
        deadlines += [
            e.used_at + e.facts.idle_timeout_s
            for e in self.engines.values()
            if e.state is EngineState.READY and not e.leases
        ]
        return min(deadlines, default=None)

    def context_of(self, facts: VariantFacts) -> int:
        """Tokens that one request gets: what an engine of it said, else what is declared."""
        return self._real_contexts.get(facts.key, facts.context)

    def contexts(self, model: str) -> list[int]:
        """Tokens that one request gets in each variant of the model."""
        return [self.context_of(facts) for facts in self._variants[model]]

    def running(self, model: str) -> EngineView | None:
        """The ready engine of this model with the largest context."""
        ready = [
            e
            for e in self.engines.values()
            if e.facts.key.model == model and e.state is EngineState.READY
        ]
        return max(ready, key=lambda e: e.context, default=None)

    # -- what each event changes -------------------------------------------------------------

    def _arrive(self, event: TicketArrived, now: float, actions: list[Action]) -> None:
        ticket = Ticket(event.ticket, event.model, event.need, now)
        if self._closing:
            actions.append(Reject(event.ticket, Refusal.SHUTTING_DOWN, "the gateway is stopping"))
        elif len(self.tickets) >= self._queue_limit and not self._free_for(ticket):
            message = f"{len(self.tickets)} requests wait already (queue_limit)"
            actions.append(Reject(event.ticket, Refusal.QUEUE_FULL, message, 5.0))
        else:
            self.tickets[ticket.id] = ticket

    def _ready(self, engine: EngineView, places: int, context: int, now: float) -> None:
        # A stop decided while it loaded stands: the engine's own task will see it next.
        if engine.state is EngineState.STARTING:
            engine.state = move(engine.state, EngineState.READY)
        engine.places, engine.context, engine.used_at = places, context, now
        self._real_contexts[engine.facts.key] = context
        self._back_off.pop(engine.facts.key, None)

    def _gone(self, number: int) -> None:
        engine = self.engines.pop(number)
        asked_for = engine.state is EngineState.STOPPING
        engine.state = move(engine.state, EngineState.STOPPED if asked_for else EngineState.FAILED)

    def _failed(self, event: EngineFailed, now: float, actions: list[Action]) -> None:
        engine = self.engines.pop(event.engine)
        served = [ticket for ticket in self.tickets.values() if engine.serves(ticket)]
        wanted = not engine.leaving
        engine.state = move(engine.state, EngineState.FAILED)
        if not wanted:
            return  # its end was asked for: nobody waits for it
        last = self._back_off.get(engine.facts.key)
        failures = last.failures + 1 if last else 1
        pause = min(BACK_OFF_FIRST_S * 2 ** (failures - 1), BACK_OFF_LONGEST_S)
        self._back_off[engine.facts.key] = BackOff(failures, now + pause, event.reason)
        refusal = Refusal.START_TIMEOUT if event.timed_out else Refusal.START_FAILED
        for ticket in served:
            if any(other.serves(ticket) for other in self.engines.values()):
                continue
            del self.tickets[ticket.id]
            actions.append(Reject(ticket.id, refusal, event.reason))

    def _expire(self, now: float, actions: list[Action]) -> None:
        for ticket in [
            t for t in self.tickets.values() if now >= t.arrived_at + self._queue_timeout_s
        ]:
            del self.tickets[ticket.id]
            message = f"no engine was free within {self._queue_timeout_s:g} s (queue_timeout)"
            actions.append(Reject(ticket.id, Refusal.QUEUE_TIMEOUT, message))
        for engine in self.engines.values():
            idle_s = engine.facts.idle_timeout_s
            unused = engine.state is EngineState.READY and not engine.leases
            if unused and now >= engine.used_at + idle_s:
                self._leave(engine, f"idle for {idle_s:g} s", actions)

    def _close(self, actions: list[Action]) -> None:
        self._closing = True
        actions.extend(
            Reject(ticket, Refusal.SHUTTING_DOWN, "the gateway is stopping")
            for ticket in self.tickets
        )
        self.tickets.clear()
        for engine in self.engines.values():
            if not engine.leaving:
                self._leave(engine, "the gateway is stopping", actions)

    # -- decisions ---------------------------------------------------------------------------

    def _leave(self, engine: EngineView, reason: str, actions: list[Action]) -> None:
        """Stop an engine now if nobody holds a lease, else when the last lease is back."""
        if engine.leases:
            engine.state = move(engine.state, EngineState.DRAINING)
            actions.append(Drain(engine.id, reason))
        else:
            engine.state = move(engine.state, EngineState.STOPPING)
            actions.append(Stop(engine.id, reason))

    def _decide(self, now: float, actions: list[Action]) -> None:
        for engine in self.engines.values():
            if engine.state is EngineState.DRAINING and not engine.leases:
                engine.state = move(engine.state, EngineState.STOPPING)
                actions.append(Stop(engine.id, "drained"))
        wanted: set[int] = set()  # engines that a ticket looked at so far waits for
        coming: list[VariantFacts] = []  # starts that wait for room
        for ticket in [*self.tickets.values()]:
            serving = [e for e in self.engines.values() if e.serves(ticket)]
            if free := self._free_for(ticket):
                engine = min(free, key=lambda e: e.context)
                engine.leases += 1
                engine.used_at = now
                del self.tickets[ticket.id]
                actions.append(Grant(ticket.id, engine.id))
            elif serving:
                wanted.update(e.id for e in serving)
            else:
                self._make_room(ticket, wanted, coming, now, actions)

    def _free_for(self, ticket: Ticket) -> list[EngineView]:
        return [
            e
            for e in self.engines.values()
            if e.serves(ticket) and e.state is EngineState.READY and e.leases < e.places
        ]

    def _make_room(
        self,
        ticket: Ticket,
        wanted: set[int],
        coming: list[VariantFacts],
        now: float,
        actions: list[Action],
    ) -> None:
        if any(f.key.model == ticket.model and self.context_of(f) >= ticket.need for f in coming):
            return  # rides along with an earlier ticket's start
        facts = next(
            (f for f in self._variants[ticket.model] if self.context_of(f) >= ticket.need), None
        )
        if facts is None:  # an engine turned out to hold less than its variant declares
            del self.tickets[ticket.id]
            message = f"no variant of {ticket.model} holds {ticket.need} tokens"
            actions.append(Reject(ticket.id, Refusal.TOO_LARGE, message))
            return
        back_off = self._back_off.get(facts.key)
        if back_off is not None and now < back_off.until:
            del self.tickets[ticket.id]
            message = (
                f"{facts.key} failed to start {back_off.failures} times, the next try is in "
                f"{back_off.until - now:.1f} s. Last failure: {back_off.reason}"
            )
            actions.append(Reject(ticket.id, Refusal.BACK_OFF, message, back_off.until - now))
            return
        # Whoever comes first has the address, also while it waits for room: else a later start
        # would take it and be stopped for the earlier one, again and again.
        promised = any(_same_endpoint(f, facts) for f in coming)
        coming.append(facts)
        if promised:
            return
        holders = [e for e in self.engines.values() if _same_endpoint(e.facts, facts)]
        if any(e.id in wanted for e in holders):
            return
        for engine in holders:
            if not engine.leaving:
                self._leave(engine, f"{facts.key} needs its address", actions)
        here = [e for e in self.engines.values() if e.facts.pool == facts.pool]
        ahead = sum(1 for f in coming[:-1] if f.pool == facts.pool)
        limit = self._limits[facts.pool]
        if sum(1 for e in here if not e.leaving) + ahead >= limit:
            victims = [e for e in here if not e.leaving and e.id not in wanted]
            if not victims:
                return
            self._leave(min(victims, key=_given_up_first(facts)), f"swap to {facts.key}", actions)
        if len(here) + ahead < limit and not holders:
            coming.pop()
            engine = EngineView(self._next_engine, facts, self.context_of(facts), used_at=now)
            self._next_engine += 1
            self.engines[engine.id] = engine
            wanted.add(engine.id)
            actions.append(Start(engine.id, facts.key, f"a request needs {ticket.need} tokens"))


def _same_endpoint(one: VariantFacts, other: VariantFacts) -> bool:
    return one.endpoint is not None and one.endpoint == other.endpoint


def _given_up_first(facts: VariantFacts) -> Callable[[EngineView], tuple[bool, bool, bool, float]]:
    """Order of engines to give up for a start of `facts`, the first one first."""

    def order(engine: EngineView) -> tuple[bool, bool, bool, float]:
        outgrown = engine.facts.key.model == facts.key.model
        return (engine.leases > 0, not outgrown, engine.facts.pinned, engine.used_at)

    return order
