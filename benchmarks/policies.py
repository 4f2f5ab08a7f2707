"""The schedulers that are compared, all with the interface of `Scheduler`.

- `strict`: first come, first served. A ticket is granted only when every earlier one of its pool
  has been: the head of the line may share a ready engine that has a free slot, otherwise an engine
  drains for it.
- `unbounded`: first come, first served, with a fast path that has no end: a ticket whose engine
  is ready and has a free slot is granted at once, whoever waits, and an engine makes way only
  when it has no leases and nobody waits for it. This is how the leading peer's code reads.
- `ours`: the gateway's.

The first two know no clients: turns are by arrival.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Grant,
    How,
    LeaseReturned,
    Refusal,
    Reject,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.ticket_queue import Ticket

# As `Scheduler`: (variants, pools, *, queue_limit, queue_timeout_s, fairness_window_s).
Policy = Callable[..., Scheduler]


class UnboundedFastPath(Scheduler):
    """Our scheduler with a window that never ends, and one client for all tickets."""

    def __init__(
        self,
        variants: Sequence[VariantFacts],
        pools: Mapping[str, PoolConfig],
        **limits: Any,
    ) -> None:
        super().__init__(variants, pools, **{**limits, "fairness_window_s": math.inf})

    def handle(self, event: Event, now: float) -> list[Action]:
        if isinstance(event, TicketArrived):
            event = msgspec.structs.replace(event, client="")
        return super().handle(event, now)


class StrictFirstCome(Scheduler):
    """Shares the books (`state`) with ours, and no decision. It knows what a comparison needs: one
    variant for each model, a limit of engines, failures and the end; no timeouts, no memory."""

    def __init__(
        self,
        variants: Sequence[VariantFacts],
        pools: Mapping[str, PoolConfig],
        **limits: Any,
    ) -> None:
        super().__init__(variants, pools, **limits)
        self._engines_so_far = 0
        self._ending = False
        self._made_way: tuple[VariantKey, ...] = ()  # for the start that is to come

    def next_deadline(self) -> float | None:
        return None

    def handle(self, event: Event, now: float) -> list[Action]:
        actions: list[Action] = []
        state = self.state
        match event:
            case TicketArrived(ticket, model, need, _, priority):
                arrived = Ticket(ticket, model, need, "", priority, now)
                arrived.size = state.variants.context_of(state.variants[model][0])
                state.add_ticket(arrived)
            case TicketGone(ticket):
                if (gone := state.tickets.get(ticket)) is not None:
                    state.remove_ticket(gone)
            case LeaseReturned(ticket):
                state.take_back(ticket, now)
            case EngineReady(engine, slots):
                view = state.engines[engine]
                view.slots, view.ready_at = slots, now
                if view.state is EngineState.STARTING:
                    state.move_engine(view, EngineState.READY)
            case EngineFailed(engine, reason):
                failed = state.forget_engine(engine).key.model
                self._refuse(lambda t: t.model == failed, Refusal.START_FAILED, reason, actions)
            case EngineExited(engine):
                state.forget_engine(engine)
            case ShutDown():
                self._ending = True
            case _:
                pass
        if self._ending:
            self._refuse(lambda _: True, Refusal.SHUTTING_DOWN, "the gateway is stopping", actions)
            for view in state.engines.values():
                self._drain(view, "the gateway is stopping", actions)
        self._stop_drained(actions)
        for pool in state.pools:
            while (head := self._head(pool)) is not None and self._serve(head, now, actions):
                pass
        return actions

    def _head(self, pool: str) -> Ticket | None:
        for ticket in self.state.tickets.values():
            if self.state.variants[ticket.model][0].pool == pool:
                return ticket
        return None

    def _serve(self, head: Ticket, now: float, actions: list[Action]) -> bool:
        """Grant the head of the line, or make its engine come; whether it was granted."""
        engine = self.state.server_of(head)
        if engine is not None:
            free = engine.state is EngineState.READY and len(engine.leases) < engine.slots
            if free:
                self.state.hold(head, engine, now)
                fresh = engine.ready_at is not None and head.arrived_at < engine.ready_at
                how = (How.SWAPPED if engine.evicted else How.STARTED) if fresh else How.REUSED
                actions.append(Grant(head.id, engine.id, how, engine.evicted if fresh else ()))
            return free
        facts = self.state.variants[head.model][0]
        here = [e for e in self.state.engines.values() if e.facts.pool == facts.pool]
        if len(here) < self.state.pools[facts.pool].engines:
            self._open(facts, now, actions)
        elif not any(other.leaving for other in here):
            victim = min(here, key=lambda e: (len(e.leases), e.used_at))
            self._made_way = (victim.key,)
            self._drain(victim, f"swap to {facts.key}", actions)
            self._stop_drained(actions)
        return False

    def _open(self, facts: VariantFacts, now: float, actions: list[Action]) -> None:
        self._engines_so_far += 1
        evicted, self._made_way = self._made_way, ()
        context = self.state.variants.context_of(facts)
        number = self._engines_so_far
        self.state.add_engine(
            EngineView(number, facts, context, started_at=now, used_at=now, evicted=evicted)
        )
        actions.append(Start(number, facts.key, "it is at the head of the line"))

    def _drain(self, engine: EngineView, reason: str, actions: list[Action]) -> None:
        if engine.state is EngineState.READY:
            self.state.move_engine(engine, EngineState.DRAINING)
            actions.append(Drain(engine.id, reason))
        elif engine.state is EngineState.STARTING:
            self.state.move_engine(engine, EngineState.STOPPING)
            actions.append(Stop(engine.id, reason))

    def _stop_drained(self, actions: list[Action]) -> None:
        for engine in self.state.engines.values():
            if engine.state is EngineState.DRAINING and not engine.leases:
                self.state.move_engine(engine, EngineState.STOPPING)
                actions.append(Stop(engine.id, "drained"))

    def _refuse(
        self, whom: Callable[[Ticket], bool], refusal: Refusal, why: str, actions: list[Action]
    ) -> None:
        for ticket in [t for t in self.state.tickets.values() if whom(t)]:
            self.state.remove_ticket(ticket)
            actions.append(Reject(ticket.id, refusal, why))


POLICIES: Mapping[str, Policy] = {
    "strict": StrictFirstCome,
    "unbounded": UnboundedFastPath,
    "ours": Scheduler,
}
