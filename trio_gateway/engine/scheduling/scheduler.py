"""Who is granted an engine, which engine is started, which is stopped: decisions, no effects.

Events go in through `Scheduler.handle`, actions come out; the clock is an argument. Nothing here
waits, reads a file or talks to a process, so every rule can be tested with plain values. This file
has what each event changes; `decisions.py`, what the state then asks for.

The rules, for each pool:

- A ticket whose engine is ready, large enough, not draining and has a free slot is granted, if the
  engine has as many tokens left as it needs. Whose turn it is among several is decided in
  `ticket_queue.py`.
- Tickets that no engine of their model will serve are a demand for a start: of the smallest variant
  that holds the largest need that waits, with its room to grow (`demands.py`). Which engines make
  way for it, and when, is decided in `swap_plan.py`. A drain that is no longer needed is called
  off.
- An engine that gets ready serves the oldest ticket that it holds, and as many others as it has
  slots and tokens for, whatever waits for its room by then: no load is wasted.
- A start that no request waits for any more is given up in its first half.
- A need that is only a bound or an estimate is counted again, once, where an engine of the model
  can tell, before anything is started for it or it waits for shared tokens (`recounts.py`).
- What has failed is left alone for a while (`back_off.py`): a short while is waited out.
- What another configuration changes is in `reconfiguration.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.admission import (
    full_for,
    lease_of,
    model_gone,
    next_older,
    not_started,
    older,
    shutting_down,
    ticket_of,
    timed_out,
    too_large,
)
from trio_gateway.engine.scheduling.decisions import Decisions, reject
from trio_gateway.engine.scheduling.elsewhere import note
from trio_gateway.engine.scheduling.elsewhere_events import EngineWaking, SlotsChanged
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    Action,
    Cause,
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Event,
    Grant,
    How,
    Keep,
    LeaseReturned,
    Reconfigured,
    Recounted,
    Refusal,
    Reject,
    Remembered,
    ShutDown,
    TicketArrived,
    TicketGone,
    TimePassed,
    Unload,
    VariantFacts,
)
from trio_gateway.engine.scheduling.giving_up import NEVER
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.memory_events import MemorySeen, Yield, YieldEnded, YieldOver
from trio_gateway.engine.scheduling.overfull_pool import heed, relieve
from trio_gateway.engine.scheduling.preview import NEWCOMER, Preview, preview_of
from trio_gateway.engine.scheduling.reconfiguration import reconfigure
from trio_gateway.engine.scheduling.remembered import remember
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.ticket_queue import AGES_AFTER_WINDOWS, Counting, Ticket
from trio_gateway.engine.scheduling.waiting import Waits


class Scheduler:
    """See the module's text. `variants` must be sorted by context within each model.

    `wakes_at`: when `TimePassed` is due next, or a moment before that, as a request makes the stop
    of its engine later.
    """

    def __init__(
        self,
        variants: Sequence[VariantFacts],
        pools: Mapping[str, PoolConfig],
        *,
        queue_limit: int = 256,
        queue_timeout_s: float = 600.0,
        fairness_window_s: float = 10.0,
    ) -> None:
        self.state = SchedulerState(variants, pools)
        self._decisions = Decisions(self.state, fairness_window_s)
        self._limit(queue_limit, queue_timeout_s, fairness_window_s)
        self.wakes_at = NEVER

    def _limit(self, queue_limit: int, queue_timeout_s: float, window_s: float) -> None:
        self._queue_limit, self._queue_timeout_s = queue_limit, queue_timeout_s
        self.window_s, self._ages_after_s = window_s, AGES_AFTER_WINDOWS * window_s

    def __repr__(self) -> str:
        tickets, engines = self.state.tickets.values(), self.state.engines.values()
        return f"Scheduler(tickets={[*tickets]}, engines={[*engines]})"

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time `now` (seconds, any monotonic clock); what to do about it."""
        if not self.state.tickets and (shortly := self._handle_shortly(event, now)) is not None:
            return shortly
        actions: list[Action] = []
        state = self.state
        match event:
            case TicketArrived():
                self._arrive(event, now, actions)
            case Recounted():
                self._recounted(event, actions)
            case LeaseReturned(ticket):
                state.take_back(ticket, now)
            case TicketGone(ticket):
                if (gone := state.tickets.get(ticket)) is not None:
                    state.remove_ticket(gone)
            case EngineReady():
                self._ready(event, now, actions)
            case EngineFailed():
                self._failed(event, now, actions)
            case EngineExited():
                self._exited(event, now)
            case EngineMeasured(engine, memory_bytes):
                view = state.engines.get(engine)
                if view is not None and not view.outdated:
                    state.variants.note_memory(view.facts, memory_bytes)
                    relieve(view.facts.pool, state, self._decisions, now, actions)
            case MemorySeen() | Yield() | YieldOver():
                heed(event, state, self._decisions, now, actions)
            case SlotsChanged() | EngineWaking():
                note(event, state)
            case Unload(model, force):
                self._unload(model, force, actions)
            case Keep():
                state.variants.keep(event)
                state.touched.add(event.model)
                state.idle.note_timeouts(state.engines.values())
            case Reconfigured():
                self._limit(event.queue_limit, event.queue_timeout_s, event.fairness_window_s)
                reconfigure(event, state, self._decisions, now, actions)
            case Remembered():
                remember(event, state)
            case TimePassed():
                self._expire(now, actions)
            case ShutDown():
                self._close(actions)
        self._decisions.decide(now, actions)
        self.wakes_at = self._next_deadline()
        return actions

    def _handle_shortly(self, event: Event, now: float) -> list[Action] | None:
        """What a request costs where no ticket waits, before and after it: then nothing is to be
        planned, nothing makes way for another, and the last event has decided all that its time
        asked for. None: it has to go the long way, which would decide the same."""
        state = self.state
        if isinstance(event, LeaseReturned):
            if (due := state.take_back(event.ticket, now)) is None:
                return None  # its engine is to be stopped
            if due < self.wakes_at:
                self.wakes_at = due
            return []
        if not isinstance(event, TicketArrived):
            return None
        size = state.variants.size_for(event.model, event.need)
        if size is None or (engine := state.engine_with_slot_for(event, size)) is None:
            return None
        state.lend(event.ticket, lease_of(event, now), engine)
        return [Grant(event.ticket, engine.id, How.REUSED)]

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due next, or None."""
        deadline = self._next_deadline()
        return None if deadline == NEVER else deadline

    def _next_deadline(self) -> float:
        state = self.state
        return min(
            self._decisions.wake_at,
            next_older(state.tickets, self._queue_timeout_s),
            next_older(state.batch, self._ages_after_s),
            state.idle.next_due(),
            *[yielded.until for yielded in state.memory.yields.values()],
        )

    def preview(
        self,
        model: str,
        need: int,
        start_need: int,
        now: float,
        *,
        client: str = "",
        priority: Priority = Priority.INTERACTIVE,
        least_need: int | None = None,
    ) -> Preview:
        """What would happen to such a ticket if it came now. Nothing is changed by it."""
        event = TicketArrived(NEWCOMER, model, need, client, priority, start_need, None, least_need)
        ticket = ticket_of(event, now)
        evicted = self._decisions.evicted_for(model)
        return preview_of(ticket, self.state, evicted, self.window_s, now)

    # -- what each event changes -------------------------------------------------------------

    def _arrive(self, event: TicketArrived, now: float, actions: list[Action]) -> None:
        ticket = ticket_of(event, now)
        if self._decisions.closing:
            actions.append(shutting_down(ticket))
            return
        sizes = self.state.variants.sizes_for(ticket)
        if sizes is None:
            is_known = ticket.model in self.state.variants
            actions.append(too_large(ticket, self.state) if is_known else model_gone(ticket))
            return
        ticket.size, ticket.start_size = sizes
        full = full_for(
            ticket, self.state, self.window_s, now, self._queue_limit, self._queue_timeout_s
        )
        if full is not None and self.state.engine_with_slot_for(ticket, ticket.size) is None:
            actions.append(full)
            return
        self.state.add_ticket(ticket)

    def _recounted(self, event: Recounted, actions: list[Action]) -> None:
        ticket = self.state.tickets.get(event.ticket)
        if ticket is None:
            if (engine := self.state.holder_of(event.ticket)) is not None:
                engine.recount(event.ticket, event.need)
                self.state.touched.add(engine.key.model)
            return
        ticket.counting = Counting.DONE
        if event.need is None:
            self.state.uncounting.add(ticket.model)
        else:
            self.state.uncounting.discard(ticket.model)
            ticket.need, ticket.start_need = event.need, event.start_need
        ticket.least_need = ticket.need
        self._size(ticket, actions)

    def _size(self, ticket: Ticket, actions: list[Action]) -> None:
        """Its need, or the model's contexts, are others now."""
        sizes = self.state.variants.sizes_for(ticket)
        if sizes is None:
            reject(self.state, too_large(ticket, self.state), actions)
        else:
            self.state.queues[ticket.model].resize(ticket, *sizes)

    def _ready(self, event: EngineReady, now: float, actions: list[Action]) -> None:
        engine = self.state.engines[event.engine]
        engine.slots, engine.context = event.slots, event.context
        engine.shared_tokens = event.shared_tokens
        engine.used_at = engine.ready_at = now
        self.state.touched.add(engine.key.model)
        if not engine.outdated:
            self._learn(engine, event, now, actions)
        # A stop decided while it loaded stands: the engine's own task will see it next.
        if engine.state is not EngineState.STARTING:
            return
        self.state.move_engine(engine, EngineState.READY)
        queue = self.state.queues.get(engine.key.model)
        if queue is not None and (oldest := queue.oldest(up_to=event.context)) is not None:
            self._decisions.grant(oldest, engine, now, actions)
            self._decisions.grant_turns(engine, now, actions)

    def _learn(
        self, engine: EngineView, event: EngineReady, now: float, actions: list[Action]
    ) -> None:
        """What it says of itself holds for the next engine of its variant."""
        self.state.forecast.start_took(engine, now)
        self.state.variants.note_slots(engine.facts, event.slots, event.shared_tokens)
        if self.state.variants.note_context(engine.facts, event.context):
            for other in self.state.engines.values():  # those that still load will say the same
                if other.key == engine.key and other.ready_at is None:
                    other.context = event.context
            self.state.engines_version += 1
            for ticket in self.state.queues.get(engine.key.model, ()):
                self._size(ticket, actions)  # other variants hold it now

    def _exited(self, event: EngineExited, now: float) -> None:
        engine = self.state.forget_engine(event.engine)
        if engine.state is EngineState.STOPPING:
            self.state.move_engine(engine, EngineState.STOPPED)
            if engine.ready_at is not None and not engine.outdated:
                self.state.back_off.engine_stopped(engine.key)
            return
        self.state.move_engine(engine, EngineState.FAILED)
        if engine.outdated or event.asleep:
            return
        served_s = now - (now if engine.ready_at is None else engine.ready_at)
        self.state.back_off.engine_ended(
            engine.key, now, event.reason, event.output, served_s=served_s
        )

    def _failed(self, event: EngineFailed, now: float, actions: list[Action]) -> None:
        engine = self.state.forget_engine(event.engine)
        wanted = not engine.leaving
        self.state.move_engine(engine, EngineState.FAILED)
        if not wanted:
            return  # its end was asked for: no request waits for it
        self.state.back_off.start_failed(engine.key, now, event.reason, event.output)
        pause = self.state.back_off.pause(engine.key, now)
        queue = self.state.queues.get(engine.key.model)
        # Those that a smaller variant holds go on waiting, for that one.
        for ticket in queue.of_size(self.state.variants.context_of(engine.facts)) if queue else ():
            if self.state.server_of(ticket) is None:
                reject(self.state, not_started(ticket, event, pause, now), actions)

    def _expire(self, now: float, actions: list[Action]) -> None:
        timeout_s = self._queue_timeout_s
        for ticket in [*older(self.state.tickets, timeout_s, now)]:
            waiting = Waits(self.state, self.window_s, now).of(ticket)
            reject(self.state, timed_out(ticket, waiting, timeout_s), actions)
        for ticket in [*older(self.state.batch, self._ages_after_s, now)]:
            self.state.promote(ticket)
        for number, yielded in [*self.state.memory.yields.items()]:
            if yielded.until <= now:
                self.state.memory.end_yield(number)
                actions.append(YieldEnded(number, "its time is over"))
        for engine, idle_s in self.state.idle.due(now):
            self._decisions.leave(engine, f"idle for {idle_s:g} s", Cause.IDLE, actions)

    def _unload(self, model: str, force: bool, actions: list[Action]) -> None:
        waiting = self.state.queues.get(model, ()) if force else ()
        for ticket in [*waiting]:  # they would have it started again at once
            unloaded = Reject(ticket.id, Refusal.UNLOADED, f"{model} was unloaded")
            reject(self.state, unloaded, actions)
        self.state.touched.add(model)
        for engine in self.state.engines_of(model):
            engine.unloading = True
            if engine.serving:
                self._decisions.leave(engine, "an unload was requested", Cause.UNLOAD, actions)

    def _close(self, actions: list[Action]) -> None:
        self._decisions.closing = True
        for ticket in [*self.state.tickets.values()]:
            reject(self.state, shutting_down(ticket), actions)
        for engine in self.state.engines.values():
            if engine.serving:
                self._decisions.leave(engine, "the gateway is stopping", Cause.SHUTDOWN, actions)
