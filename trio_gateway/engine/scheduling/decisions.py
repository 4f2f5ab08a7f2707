"""Decisions: what the state of this moment asks for, whichever event brought it about.

Which engines are started and which make way for them, whose drain is called off, and who is granted
the free slots. The rules are in `scheduler.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demands, order_of, reason_of
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    Action,
    Cause,
    Drain,
    Grant,
    How,
    Reject,
    Resume,
    Start,
    Stop,
    VariantKey,
)
from trio_gateway.engine.scheduling.evictions import too_many
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.long_answers import LongAnswers
from trio_gateway.engine.scheduling.made_way import MadeWay
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    Look,
    YieldReady,
)
from trio_gateway.engine.scheduling.pool_plan import PoolPlan
from trio_gateway.engine.scheduling.recounts import Recounts
from trio_gateway.engine.scheduling.standing_plans import StandingPlans
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Planner, Step
from trio_gateway.engine.scheduling.ticket_queue import Ticket

# An engine, whether it takes no batch tickets, and since when it takes no newcomers.
_HeldBack = tuple[EngineView, bool, float | None]

_NO_PLAN = PoolPlan()
_OTHERS = ""  # no pool has this name: those that are planned together


class Decisions:
    """Each method changes the state, and adds to the actions what it has decided.

    `wake_at`: when an engine is to make way, or what failed may be started again, if nothing
    happens before. `closing`: nothing is started any more.
    """

    def __init__(self, state: SchedulerState, window_s: float) -> None:
        self._state, self.window_s = state, window_s
        self._demands = Demands(state, state.touched.new_list())
        self._recounts = Recounts(state)
        # Models of which an engine may be drained, given up, or free for a ticket.
        self._to_stop, self._to_give_up, self._to_grant = (state.touched.new_list() for _ in "123")
        self._plans = StandingPlans(state)
        self._making_way: dict[str, set[int]] = {}  # engines, by pool
        self._held_back: dict[str, Mapping[int, _HeldBack]] = {}  # by pool
        self._long_answers = LongAnswers(state)
        self._made_way = MadeWay()
        self._next_engine = 1
        self.wake_at = NEVER
        self.closing = False

    def reconfigured(self, window_s: float) -> None:
        """Variants, pools and the window may be others from now on."""
        self.window_s = window_s
        self._plans.forget()

    def evicted_for(self, model: str) -> Sequence[VariantKey]:
        """What makes way for the model's start already."""
        return self._made_way.of(model)

    def decide(self, now: float, actions: list[Action]) -> None:
        """All that the state asks for at this time."""
        for engine in self._take(self._to_stop):
            if engine.state is EngineState.DRAINING and not engine.leases:
                self._state.move_engine(engine, EngineState.STOPPING)
                actions.append(Stop(engine.id, "drained", engine.cause))
        # Again after each start, drain, call-back and grant: they change who can make way, and who
        # needs a start. One that is called back may have to make way for the next in line at once.
        before, reached = None, self._reached(actions)
        while reached != before:
            self._make_room(now, actions)
            self._grant_slots(now, actions)
            before, reached = reached, self._reached(actions)
        self._give_room(now, actions)
        due = self._long_answers.end(now, actions)
        self.wake_at = min(self.wake_at, due)

    def _take(self, touched: set[str]) -> list[EngineView]:
        """The engines of these models, in the order of their start."""
        self._state.touched.spread()
        engines = [engine for model in touched for engine in self._state.index.of_model(model)]
        touched.clear()
        return sorted(engines, key=_number) if len(engines) > 1 else engines

    def _reached(self, actions: Sequence[Action]) -> tuple[int, int]:
        """How far an event has come; it only goes on, so deciding comes to an end: tickets that
        wait, and what was done with engines, each thing once for each engine."""
        moved = {
            (type(a), a.engine) for a in actions if isinstance(a, Start | Drain | Stop | Resume)
        }
        return len(self._state.tickets), len(moved)

    def _make_room(self, now: float, actions: list[Action]) -> None:
        """Start what is needed, and let those make way that have to."""
        for engine in self._take(self._to_give_up):
            if engine.state is EngineState.STARTING:
                self._give_up_in_first_half(engine, now, actions)
        self.wake_at = NEVER
        self._long_answers.wanted.clear()
        if self.closing:
            for pool in self._held_back:
                self._hold_back(pool, {})
            return
        self._make_room_for_yields(now, actions)
        self._state.touched.spread()
        held_until = self._recounts.hold(now, actions)
        self._state.touched.spread()
        rejects, resumes_at = self._demands.find(now)
        self.wake_at = min(held_until, resumes_at)
        for rejected in rejects:
            reject(self._state, rejected, actions)
        self._made_way.forget(self._demands.ended)
        self._demands.ended.clear()
        self._follow_plans(now, actions)

    def _grant_slots(self, now: float, actions: list[Action]) -> None:
        """Grant what can be granted, smaller engines first."""
        for engine in sorted(self._take(self._to_grant), key=_context):
            self.grant_turns(engine, now, actions)

    def _give_up_in_first_half(self, engine: EngineView, now: float, actions: list[Action]) -> None:
        half_s = self._state.forecast.load_s(engine.facts) / 2
        if now - engine.started_at < half_s and not self._state.is_wanted(engine, Priority.BATCH):
            self.leave(engine, "no request waits for it any longer", Cause.UNWANTED, actions)

    def _follow_plans(self, now: float, actions: list[Action]) -> None:
        """Carry out the plans of this moment, as far as they are others than before."""
        memory = self._state.memory
        if self._plans.sort_pools():
            for pool in self._held_back:
                self._hold_back(pool, {})
            self._making_way, self._held_back = {}, {}
        changed = self._plans.renew(self._demands, self.window_s, now)
        steps = {pool: self._plans.of_pool[pool].steps for pool in changed}
        others = self._plans.others()
        if others:
            planner = Planner(self._state, self.window_s, now)
            steps[_OTHERS] = planner.steps(self._demands.in_pools(others))
            for pool in sorted(planner.to_look - memory.looking):
                memory.looking.add(pool)
                actions.append(Look(pool))
        for plan in self._plans.of_pool.values():
            self.wake_at = min(self.wake_at, plan.wake_at)
        if not steps:
            return
        for pool, of_pool in steps.items():
            self._note(pool, of_pool, now)
        for step in _in_order([*steps.values()]):
            if step.yields_at <= now:
                self._make_way(step, now, actions)
            if step.may_start:
                self._start(step, now, actions)
        making_way = memory.making_way.union(*self._making_way.values())
        for engine in self._state.engines.values():
            making = engine.id in making_way or engine.unloading
            if engine.state is EngineState.DRAINING and not making:
                self._resume(engine, actions)

    def _note(self, pool: str, steps: Sequence[Step], now: float) -> None:
        """Who makes way for the steps of the pool, and who takes less until then."""
        making_way = self._making_way[pool] = set()
        plan = self._plans.of_pool.get(pool, _NO_PLAN)
        held_back: dict[int, _HeldBack] = {e.id: (e, True, None) for e in plan.for_any}
        for step in steps:
            for victim in step.victims:
                self._long_answers.note_wanted(victim, step.demand.priority)
            if step.yields_at <= now:
                making_way.update(victim.id for victim in step.victims)
                continue
            closed = step.closes_at <= now
            self.wake_at = min(self.wake_at, step.yields_at if closed else step.closes_at)
            batch_waits = step.demand.priority is Priority.INTERACTIVE
            how = batch_waits, step.demand.since if closed else None
            held_back |= {victim.id: (victim, *how) for victim in step.victims}
        self._hold_back(pool, held_back)

    def _hold_back(self, pool: str, now_on: Mapping[int, _HeldBack]) -> None:
        """These engines, and no others of the pool, take not every ticket from now on."""
        before = self._held_back.get(pool, {})
        for number in before.keys() - now_on.keys():
            self._change(before[number][0], False, None)
        for number, how in now_on.items():
            if before.get(number) != how:
                self._change(*how)
        self._held_back[pool] = now_on

    def _change(self, engine: EngineView, batch_waits: bool, closed_since: float | None) -> None:
        if (batch_waits, closed_since) != (engine.batch_waits, engine.closed_since):
            engine.batch_waits, engine.closed_since = batch_waits, closed_since
            self._to_grant.add(engine.key.model)

    def _make_room_for_yields(self, now: float, actions: list[Action]) -> None:
        """Those leave that hold what another program is to have, idle ones first; busy ones take
        nothing new, and finish what runs."""
        memory = self._state.memory
        memory.making_way.clear()
        for pool in {yielded.asked.pool for yielded in memory.yields.values()}:
            reason = f"memory of the pool {pool} is yielded to another program"
            for engine in [*too_many(pool, self._state, now, draining=True)]:
                wanted = self._state.is_wanted(engine, Priority.BATCH)
                if engine.state is EngineState.STARTING and wanted:
                    continue  # its load is not wasted: it goes once it has served who waits
                memory.making_way.add(engine.id)
                self._long_answers.note_wanted(engine, Priority.INTERACTIVE)
                if engine.serving:
                    self.leave(engine, reason, Cause.YIELD, actions)

    def _give_room(self, now: float, actions: list[Action]) -> None:
        """Tell those to whom memory is yielded once it is there."""
        for number, yielded in self._state.memory.yields.items():
            if yielded.is_ready:
                continue
            pool = yielded.asked.pool
            held = [(engine.facts, engine.places) for engine in self._state.index.in_pool(pool)]
            over = self._state.memory.over(pool, held, up_to=number)
            if over.get(yielded.place, 0) <= 0:
                yielded.is_ready, yielded.until = True, now + yielded.asked.seconds
                actions.append(YieldReady(number))

    def _make_way(self, step: Step, now: float, actions: list[Action]) -> None:
        target = step.demand.facts.key
        for victim in step.victims:
            self._made_way.add(victim.key, target.model)
            if victim.serving:  # otherwise it drains already
                if victim.key.model != target.model:  # growing is not the end of a turn
                    self._state.end_turn(victim.key.model, now)
                reason = f"swap to {target}"
                if step.yields_at != AT_ONCE:
                    reason += f", which has waited {now - step.demand.since:.1f} s"
                self.leave(victim, reason, Cause.SWAP, actions)

    def leave(self, engine: EngineView, reason: str, cause: Cause, actions: list[Action]) -> None:
        """Stop an engine now if it has no lease, otherwise when the last lease is back."""
        if engine.leases:
            self._state.move_engine(engine, EngineState.DRAINING)
            engine.cause = cause
            actions.append(Drain(engine.id, reason, cause))
        else:
            self._state.move_engine(engine, EngineState.STOPPING)
            actions.append(Stop(engine.id, reason, cause))

    def _resume(self, engine: EngineView, actions: list[Action]) -> None:
        self._state.move_engine(engine, EngineState.READY)
        self._made_way.remove(engine.key)
        actions.append(Resume(engine.id, "its room is no longer needed"))

    def _start(self, step: Step, now: float, actions: list[Action]) -> None:
        demand = step.demand
        key = demand.facts.key
        evicted = tuple(self._made_way.take(key.model))
        engine = EngineView(
            self._next_engine,
            demand.facts,
            self._state.variants.context_of(demand.facts),
            started_at=now,
            used_at=now,
            evicted=evicted,
            places=step.places,
        )
        self._next_engine += 1
        self._state.add_engine(engine)
        reason = reason_of(demand, self._state.queues[key.model])
        devices = tuple(place for place, _ in step.places if place != WHOLE)
        actions.append(Start(engine.id, key, reason, devices))

    def grant_turns(self, engine: EngineView, now: float, actions: list[Action]) -> None:
        """Give the engine's free slots to those whose turn it is."""
        while engine.state is EngineState.READY and len(engine.leases) < engine.slots:
            queue = self._state.queues.get(engine.key.model)
            if queue is None:
                return
            if engine.closed_since is not None:
                lowest = Priority.INTERACTIVE if engine.batch_waits else Priority.BATCH
                ticket = self._state.oldest_before(engine, engine.closed_since, lowest)
            else:
                ticket = queue.next_turn(engine.context, interactive_only=engine.batch_waits)
            if ticket is None:
                return
            if not engine.has_tokens_for(ticket.need):
                # No ticket overtakes it: it would wait for ever.
                self._recounts.for_room(ticket, engine, now, actions)
                return
            self.grant(ticket, engine, now, actions)

    def grant(self, ticket: Ticket, engine: EngineView, now: float, actions: list[Action]) -> None:
        self._state.hold(ticket, engine, now)
        actions.append(grant_of(ticket, engine))


def grant_of(ticket: Ticket, engine: EngineView) -> Grant:
    if engine.ready_at is None or ticket.arrived_at >= engine.ready_at:
        return Grant(ticket.id, engine.id, How.REUSED)
    if engine.evicted:
        return Grant(ticket.id, engine.id, How.SWAPPED, engine.evicted)
    return Grant(ticket.id, engine.id, How.STARTED)


def reject(state: SchedulerState, rejected: Reject, actions: list[Action]) -> None:
    """The ticket no longer waits."""
    state.remove_ticket(state.tickets[rejected.ticket])
    actions.append(rejected)


def _in_order(steps: Sequence[Sequence[Step]]) -> Iterable[Step]:
    """Those of several pools."""
    return (
        steps[0] if len(steps) == 1 else heapq.merge(*steps, key=lambda step: order_of(step.demand))
    )


def _context(engine: EngineView) -> int:
    return engine.context


def _number(engine: EngineView) -> int:
    return engine.id
