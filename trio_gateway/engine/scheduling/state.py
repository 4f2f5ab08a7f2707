"""SchedulerState: what the scheduler knows about tickets, engines and variants. Decides nothing."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.back_off import BackOff
from trio_gateway.engine.scheduling.engine_index import EngineIndex
from trio_gateway.engine.scheduling.engine_view import EngineView, HeldLease
from trio_gateway.engine.scheduling.events import TicketArrived, VariantFacts, VariantKey
from trio_gateway.engine.scheduling.forecast import Forecast
from trio_gateway.engine.scheduling.idle_engines import IdleEngines
from trio_gateway.engine.scheduling.lifecycle import EngineState, move
from trio_gateway.engine.scheduling.pool_memory import PoolMemory
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue
from trio_gateway.engine.scheduling.touched import Touched
from trio_gateway.engine.scheduling.variants import Variants


def in_line(models: Collection[str], state: SchedulerState) -> list[str]:
    """In the order in which tickets came to wait for them, then those that none waits for."""
    if len(models) < 2:
        return [*models]

    def born(model: str) -> float:
        queue = state.queues.get(model)
        return math.inf if queue is None else queue.born

    return sorted(models, key=born)


class SchedulerState:
    """`variants` must be sorted by context within each model."""

    def __init__(self, variants: Sequence[VariantFacts], pools: Mapping[str, PoolConfig]) -> None:
        self.variants = Variants(variants)
        self.memory = PoolMemory(self.variants, pools)
        self.tickets: dict[int, Ticket] = {}  # in order of arrival
        self.batch: dict[int, Ticket] = {}  # not aged yet, in order of arrival
        self.generating = 0  # tickets that wait for something to be generated
        # Bytes that the others wait with, by model and client.
        self.to_read: dict[str, dict[str, int]] = {}
        self.queues: dict[str, TicketQueue] = {}  # of the models that tickets wait for
        self.engines: dict[int, EngineView] = {}  # those that are not gone, in order of their start
        self.index = EngineIndex()  # the same
        self.touched = Touched()
        self.idle = IdleEngines(self.variants)
        self.engines_version = 0  # grows when an engine comes, goes or changes its state
        self._holders: dict[int, EngineView] = {}  # by ticket: who has its lease
        self._turns_ended: dict[str, tuple[float, int]] = {}  # by model: when, and in which place
        self._places = itertools.count(1)
        self.uncounting: set[str] = set()  # models whose engines could not count when last asked
        self.back_off = BackOff[VariantKey]()
        self.forecast = Forecast()

    # -- tickets and leases ------------------------------------------------------------------

    def add_ticket(self, ticket: Ticket) -> None:
        ticket.place = next(self._places)
        self.tickets[ticket.id] = ticket
        if (queue := self.queues.get(ticket.model)) is None:
            changed = functools.partial(self.touched.add, ticket.model)
            queue = self.queues[ticket.model] = TicketQueue(changed)
        queue.add(ticket)
        if ticket.priority is Priority.BATCH:
            self.batch[ticket.id] = ticket
        if ticket.read_bytes is None:
            self.generating += 1
        else:
            of_model = self.to_read.setdefault(ticket.model, {})
            of_model[ticket.client] = of_model.get(ticket.client, 0) + ticket.read_bytes

    def remove_ticket(self, ticket: Ticket, *, granted: bool = False) -> None:
        """The ticket no longer waits, whatever happened to it."""
        del self.tickets[ticket.id]
        self.batch.pop(ticket.id, None)
        queue = self.queues[ticket.model]
        queue.remove(ticket, granted=granted)
        if not queue:
            del self.queues[ticket.model]
            self.to_read.pop(ticket.model, None)
        elif ticket.read_bytes is not None:
            of_model = self.to_read[ticket.model]
            left = of_model.pop(ticket.client, 0) - ticket.read_bytes
            if left:
                of_model[ticket.client] = left
        self.generating -= ticket.read_bytes is None

    def promote(self, ticket: Ticket) -> None:
        """A batch ticket has aged: it is interactive from now on."""
        del self.batch[ticket.id]
        self.queues[ticket.model].promote(ticket)

    def hold(self, ticket: Ticket, engine: EngineView, now: float) -> None:
        """The ticket becomes a lease."""
        self.remove_ticket(ticket, granted=True)
        lease = HeldLease(
            now,
            ticket.priority,
            ticket.need,
            ticket.least_need,
            ticket.counting,
            ticket.read_bytes,
            ticket.progress,
        )
        self.lend(ticket.id, lease, engine)

    def lend(self, ticket: int, lease: HeldLease, engine: EngineView) -> None:
        """To a ticket that is in no queue."""
        engine.leases[ticket] = lease
        engine.used_at = lease.granted_at
        self._holders[ticket] = engine
        self.touched.add(engine.facts.key.model)

    def holder_of(self, ticket: int) -> EngineView | None:
        """The engine that the ticket is a lease of; None: it is gone, or there is no such lease."""
        return self._holders.get(ticket)

    def take_back(self, ticket: int, now: float) -> float | None:
        """When its engine will have been idle for too long, if it was not known that it would be;
        otherwise infinite. None: it was the last lease of one that drains."""
        # The engine may be gone: a lease outlives a crash until its request notices.
        if (engine := self._holders.pop(ticket, None)) is None:
            return math.inf
        lease, model = engine.leases.pop(ticket), engine.facts.key.model
        engine.used_at = now
        self.touched.add(model)
        self.forecast.lease_ended(model, lease, engine.context, now)
        if engine.leases:
            return math.inf
        return None if engine.state is EngineState.DRAINING else self.idle.note(engine)

    # -- engines -----------------------------------------------------------------------------

    def add_engine(self, engine: EngineView) -> None:
        self.engines[engine.id] = engine
        self.index.add(engine)
        note_change(engine, self)

    def move_engine(self, engine: EngineView, to: EngineState) -> None:
        engine.state = move(engine.state, to)
        note_change(engine, self)

    def forget_engine(self, number: int) -> EngineView:
        engine = self.engines.pop(number)
        self.index.remove(engine)
        note_change(engine, self)
        self.idle.forget(engine)
        if not engine.outdated:
            self.variants.note_run(engine.facts)
        for ticket in engine.leases:
            del self._holders[ticket]
        return engine

    def engines_of(self, model: str) -> list[EngineView]:
        """The model's engines, the smallest first."""
        found = [*self.index.of_model(model)]
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

    def engine_with_slot_for(self, asked: Ticket | TicketArrived, size: int) -> EngineView | None:
        """The engine that would take the ticket at once, if it came now."""
        for engine in self.engines_of(asked.model):
            if (
                engine.state is EngineState.READY
                and engine.context >= size
                and engine.closed_since is None
                and not (engine.batch_waits and asked.priority is Priority.BATCH)
                and len(engine.leases) < engine.slots
                and engine.has_tokens_for(asked.need)
                # Whoever waits there does not fit into what is left, and is not overtaken.
                and not (self.queues and self.is_wanted(engine, asked.priority))
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

    # -- pools -------------------------------------------------------------------------------

    @property
    def pools(self) -> Mapping[str, PoolConfig]:
        return self.memory.pools


def note_change(engine: EngineView, state: SchedulerState) -> None:
    """It comes, goes, or is in another state than before."""
    state.engines_version += 1
    state.idle.note(engine)
    state.touched.add(engine.key.model)


def touch_all(state: SchedulerState) -> None:
    """Something has changed that may concern any model."""
    engines = state.engines.values()
    state.touched.add_all({*state.queues, *(engine.key.model for engine in engines)})
