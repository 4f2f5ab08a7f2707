"""SchedulerState: what the scheduler knows of tickets, engines and variants. It decides nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import PoolConfig
from trio_gateway.engine.scheduling.back_off import BackOff
from trio_gateway.engine.scheduling.engine_view import EngineView, HeldLease
from trio_gateway.engine.scheduling.events import Keep, VariantFacts, VariantKey
from trio_gateway.engine.scheduling.forecast import Forecast
from trio_gateway.engine.scheduling.lifecycle import EngineState, move
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue


class SchedulerState:
    """`variants` must be sorted by context within each model."""

    def __init__(self, variants: Sequence[VariantFacts], pools: Mapping[str, PoolConfig]) -> None:
        self.variants: dict[str, list[VariantFacts]] = {}
        for facts in variants:
            self.variants.setdefault(facts.key.model, []).append(facts)
        self.pools = dict(pools)
        self.tickets: dict[int, Ticket] = {}  # in order of arrival
        self.batch: dict[int, Ticket] = {}  # not aged yet, in order of arrival
        self.queues: dict[str, TicketQueue] = {}  # of the models that tickets wait for
        self.engines: dict[int, EngineView] = {}  # those that are not gone
        self.engines_version = 0  # grows when an engine comes, goes or changes its state
        self._holders: dict[int, EngineView] = {}  # by ticket: who has its lease
        self._turns_ended: dict[str, tuple[float, int]] = {}  # by model: when, and in which place
        self._places = itertools.count(1)
        self.back_off = BackOff[VariantKey]()
        self.forecast = Forecast()
        self._contexts: dict[VariantKey, int] = {}  # what engines said
        self._memory: dict[VariantKey, int] = {}  # what was measured
        self._has_run: set[VariantKey] = set()  # those that were measured from start to end
        self._places_of: dict[VariantKey, int] = {}  # what engines said
        self._shared_of: dict[VariantKey, int | None] = {}  # what engines said
        self._kept: dict[str, Keep] = {}  # by model: what was asked for since the start

    # -- tickets and leases ------------------------------------------------------------------

    def add_ticket(self, ticket: Ticket) -> None:
        ticket.place = next(self._places)
        self.tickets[ticket.id] = ticket
        self.queues.setdefault(ticket.model, TicketQueue()).add(ticket)
        if ticket.priority is Priority.BATCH:
            self.batch[ticket.id] = ticket

    def remove_ticket(self, ticket: Ticket, *, granted: bool = False) -> None:
        """The ticket waits no more, whatever became of it."""
        del self.tickets[ticket.id]
        self.batch.pop(ticket.id, None)
        queue = self.queues[ticket.model]
        queue.remove(ticket, granted=granted)
        if not queue:
            del self.queues[ticket.model]

    def promote(self, ticket: Ticket) -> None:
        """A batch ticket has aged: it is interactive from now on."""
        del self.batch[ticket.id]
        self.queues[ticket.model].promote(ticket)

    def hold(self, ticket: Ticket, engine: EngineView, now: float) -> None:
        """The ticket becomes a lease."""
        self.remove_ticket(ticket, granted=True)
        engine.leases[ticket.id] = HeldLease(now, ticket.priority, ticket.need)
        engine.used_at = now
        self._holders[ticket.id] = engine

    def take_back(self, ticket: int, now: float) -> None:
        # The engine may be gone: a lease outlives a crash until its request notices.
        if (engine := self._holders.pop(ticket, None)) is not None:
            lease = engine.leases.pop(ticket)
            engine.used_at = now
            self.forecast.lease_took(engine.key.model, now - lease.granted_at)

    # -- engines -----------------------------------------------------------------------------

    def add_engine(self, engine: EngineView) -> None:
        self.engines[engine.id] = engine
        self.engines_version += 1

    def move_engine(self, engine: EngineView, to: EngineState) -> None:
        engine.state = move(engine.state, to)
        self.engines_version += 1

    def forget_engine(self, number: int) -> EngineView:
        self.engines_version += 1
        engine = self.engines.pop(number)
        if engine.key in self._memory:
            self._has_run.add(engine.key)
        for ticket in engine.leases:
            del self._holders[ticket]
        return engine

    def engines_of(self, model: str) -> list[EngineView]:
        """The model's engines, the smallest first."""
        found = [e for e in self.engines.values() if e.facts.key.model == model]
        return sorted(found, key=lambda e: e.context) if len(found) > 1 else found

    def running(self, model: str) -> EngineView | None:
        """The ready engine of this model with the largest context."""
        ready = [e for e in self.engines_of(model) if e.state is EngineState.READY]
        return ready[-1] if ready else None

    def server_of(self, ticket: Ticket) -> EngineView | None:
        """An engine that will serve the ticket: the smallest that is large enough."""
        for engine in self.engines_of(ticket.model):
            if engine.serving and engine.context >= ticket.size:
                return engine
        return None

    def served(self, model: str) -> int:
        """The largest context among the model's engines that have grants to give."""
        return max((e.context for e in self.engines_of(model) if e.serving), default=0)

    def place_for(self, ticket: Ticket) -> EngineView | None:
        """The engine that would take the ticket at once, if it came now."""
        for engine in self.engines_of(ticket.model):
            if (
                engine.state is EngineState.READY
                and engine.context >= ticket.size
                and engine.closed_since is None
                and not (engine.batch_waits and ticket.priority is Priority.BATCH)
                and engine.can_take(ticket.need)
                # Whoever waits there does not fit into what is left, and is not overtaken.
                and not self.is_wanted(engine, ticket.priority)
            ):
                return engine
        return None

    def is_wanted(self, engine: EngineView, priority: Priority) -> bool:
        """Whether a ticket of this priority or a higher one waits for the engine."""
        queue = self.queues.get(engine.key.model)
        return queue is not None and queue.waits_for(engine.context, priority)

    def oldest_before(self, engine: EngineView, since: float, priority: Priority) -> Ticket | None:
        """The oldest ticket of this priority or a higher one that waits for the engine, if it came
        before that time."""
        queue = self.queues.get(engine.key.model)
        oldest = queue.first_come(engine.context, priority) if queue is not None else None
        return oldest if oldest is not None and oldest.arrived_at < since else None

    def end_turn(self, model: str, now: float) -> None:
        """The model had its turn: its tickets go to the end of the line."""
        self._turns_ended[model] = now, next(self._places)

    def in_line(self, ticket: Ticket) -> tuple[float, int]:
        """Since when the ticket is in line, and in which place. A time alone would not do: several
        things happen in one moment."""
        arrived = ticket.arrived_at, ticket.place
        ended = self._turns_ended.get(ticket.model)
        return arrived if ended is None or ended[1] < ticket.place else ended

    # -- variants ----------------------------------------------------------------------------

    def context_of(self, facts: VariantFacts) -> int:
        """Tokens that one request gets: what an engine of it said, else what is declared."""
        return self._contexts.get(facts.key, facts.context)

    def contexts(self, model: str) -> list[int]:
        """Tokens that one request gets in each variant of the model."""
        return [self.context_of(facts) for facts in self.variants[model]]

    def places_of(self, facts: VariantFacts, need: int) -> int:
        """Requests of this need at a time: as an engine of it said, else as is declared, else one.
        At least one, which may have all."""
        places = max(self._places_of.get(facts.key, facts.parallel or 1), 1)
        shared = self._shared_of.get(facts.key)
        return places if shared is None else max(min(places, shared // max(need, 1)), 1)

    def note_places(self, facts: VariantFacts, places: int, shared_tokens: int | None) -> None:
        self._places_of[facts.key], self._shared_of[facts.key] = places, shared_tokens

    def note_context(self, facts: VariantFacts, context: int) -> bool:
        """What an engine said; whether that is news."""
        news = self.context_of(facts) != context
        self._contexts[facts.key] = context
        return news

    def keep(self, wish: Keep) -> None:
        self._kept[wish.model] = wish

    def is_pinned(self, facts: VariantFacts) -> bool:
        kept = self._kept.get(facts.key.model)
        return facts.pinned or (kept is not None and kept.pinned)

    def idle_timeout_s(self, facts: VariantFacts) -> float:
        """Seconds; infinite where it was asked to stay."""
        kept = self._kept.get(facts.key.model)
        if kept is None or kept.idle_timeout_s is None:
            return facts.idle_timeout_s
        return kept.idle_timeout_s

    def smallest_holding(self, model: str, need: int) -> VariantFacts | None:
        holding = [f for f in self.variants[model] if self.context_of(f) >= need]
        return min(holding, key=self.context_of, default=None)

    def sizes_for(self, ticket: Ticket) -> tuple[int, int] | None:
        """The ticket's size and start size; None: no variant holds it. The largest variant has to
        do where none holds what is wished for."""
        needed = self.smallest_holding(ticket.model, ticket.need)
        if needed is None:
            return None
        size = self.context_of(needed)
        if ticket.start_need <= size:
            return size, size
        wished = self.smallest_holding(ticket.model, ticket.start_need)
        return size, max(self.contexts(ticket.model)) if wished is None else self.context_of(wished)

    def note_memory(self, facts: VariantFacts, measured_bytes: int) -> None:
        self._memory[facts.key] = max(measured_bytes, self._memory.get(facts.key, 0))

    def memory_of(self, facts: VariantFacts) -> int | None:
        """Bytes that an engine of this variant holds: declared, measured or estimated, in this
        order; None: nothing is known. The larger of the last two during its first run, as it
        grows with its first long prompts."""
        measured = self._memory.get(facts.key)
        if facts.memory_declared or measured is None:
            return facts.memory_bytes
        if facts.key in self._has_run or facts.memory_bytes is None:
            return measured
        return max(measured, facts.memory_bytes)

    def reserved_bytes(self, facts: VariantFacts) -> int:
        """What the pool's memory must have for this variant. One of which nothing is known, or
        that turned out to be larger than the pool, has the pool for itself."""
        limit = self.pools[facts.pool].memory_bytes
        if limit is None:
            return 0
        known = self.memory_of(facts)
        return limit if known is None else min(known, limit)
