"""The plan of a pool that does nothing but count its engines. Pure.

It is the plan of `swap_plan.py`, which a property holds it against, found without comparing each
demand with each engine. Only what has consequences now is worked out in full: where more demands
wait than engines are left, and none of those closes yet, each of them is to make way for one or
another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER, GivingUp
from trio_gateway.engine.scheduling.giving_up_line import GivingUpLine, Place
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Step

# Who is cheaper to lose is known this long before it changes: times are sums of floats.
_GRAIN_S = 1e-6


class PoolPlan(msgspec.Struct):
    """`steps` as of the planner; `for_any`: engines that make way for one or another demand.
    `wake_at`: when the next engine is to take less, or to go. If no demand and no engine changes,
    the plan is the same until `stands_until`; those that were `compared` may not even be used.
    """

    steps: list[Step] = []
    for_any: list[EngineView] = []
    wake_at: float = NEVER
    stands_until: float = NEVER
    compared: dict[int, EngineView] = {}

    def wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)
        self.until(at)

    def until(self, at: float) -> None:
        self.stands_until = min(self.stands_until, at)


class Seen(msgspec.Struct, frozen=True):
    """What the plan of a pool asks of an engine. `open_until`: for interactive demands;
    `oldest_at`: when the oldest of them came that waits for it."""

    state: EngineState
    context: int
    unloading: bool
    is_pinned: bool
    ready_at: float | None
    open_until: float
    oldest_at: float | None


def seen_of(engine: EngineView, state: SchedulerState, giving_up: GivingUp) -> Seen:
    queue = state.queues.get(engine.key.model)
    oldest = None if queue is None else queue.first_come(engine.context, Priority.INTERACTIVE)
    leaves = engine.state is EngineState.STOPPING
    return Seen(
        engine.state,
        engine.context,
        engine.unloading,
        state.variants.is_pinned(engine.facts),
        engine.ready_at,
        NEVER if leaves else giving_up.open_until(engine, Priority.INTERACTIVE),
        None if oldest is None else oldest.arrived_at,
    )


class PlainPool:
    """One pool at one moment.

    Args:
        seen: of its engines, by number.
    """

    def __init__(
        self, pool: str, state: SchedulerState, giving_up: GivingUp, seen: Mapping[int, Seen]
    ) -> None:
        self._state, self._giving_up, self._seen = state, giving_up, seen
        self._pool, self._limit = pool, state.pools[pool].engines
        self._engines = state.engines_in(pool)
        self._plan = PoolPlan()
        self._draining: dict[str, list[EngineView]] = {}  # by model, of those that stay
        self._lines: list[GivingUpLine] = []
        self._turn_to(Priority.INTERACTIVE, [*self._engines])

    def _turn_to(self, priority: Priority, engines: Sequence[EngineView]) -> None:
        """The lines of those that stay: draining ones and others, each without and with a pin."""
        self._priority, self._draining = priority, {}
        self._lines = [GivingUpLine(self._giving_up.cost, self._plan.compared) for _ in range(4)]
        for engine in sorted(engines, key=attrgetter("id")):
            seen = self._seen[engine.id]
            if seen.state is EngineState.STOPPING:
                continue
            drains = seen.state is EngineState.DRAINING
            if drains:
                self._draining.setdefault(engine.key.model, []).append(engine)
            line = self._lines[2 * (not drains) + seen.is_pinned]
            line.add(engine, self._open_until(engine))

    def plan(self, demands: Sequence[Demand]) -> PoolPlan:
        """For all demands of the pool, in their order."""
        plan, promised = self._plan, 0
        for number, demand in enumerate(demands):
            staying = sum(map(len, self._lines))
            over = staying + promised + 1 - self._limit
            if demand.priority is not self._priority:
                self._turn_to(demand.priority, [e for line in self._lines for e in line.engines()])
            if not staying and over > 0:
                break
            if (back := self._draining_for(demand)) is not None:
                self._remove(back)
                continue
            if over > staying:
                break
            for line in self._lines:
                line.turn_to(demand.since + self._giving_up.window_s)
            if over == 1 and self._is_for_any(demands, number):
                plan.for_any = [e for line in self._lines for e in line.engines()]
                break
            victims = tuple(self._take(demand) for _ in range(over))
            may_start = not victims and len(self._engines) + promised < self._limit
            promised += 1
            plan.steps.append(self._step(demand, victims, may_start))
        plan.until(_cheaper_from(plan.compared.values(), self._state, self._giving_up.now))
        return plan

    def _draining_for(self, demand: Demand) -> EngineView | None:
        """As of the planner."""
        for engine in self._draining.get(demand.facts.key.model, ()):
            if not engine.unloading and engine.context >= demand.size:
                return engine
        return None

    def _is_for_any(self, demands: Sequence[Demand], number: int) -> bool:
        """Whether all engines that stay are to make way for this demand and those after it, none
        for a certain one of them by now."""
        unpinned, staying = self._lines[::2], sum(map(len, self._lines))
        if len(demands) - number < staying or demands[-1].priority is not Priority.INTERACTIVE:
            return False
        if sum(map(len, unpinned)) < staying:
            return False
        if self._draining:  # one of them may be called back
            models = {demand.facts.key.model for demand in demands[number:]}
            if not models.isdisjoint(self._draining):
                return False
        closes_at = min(line.next_closes_at for line in unpinned)
        if closes_at <= self._giving_up.now:
            return False
        self._plan.wake(closes_at)
        return True

    def _step(self, demand: Demand, victims: tuple[EngineView, ...], may_start: bool) -> Step:
        closes_at = yields_at = AT_ONCE
        for victim in victims:
            closes_at = max(closes_at, self._giving_up.closes_at(victim, demand))
            yields_at = max(yields_at, self._giving_up.yields_at(victim, demand))
        now = self._giving_up.now
        if yields_at > now:
            self._plan.wake(closes_at if closes_at > now else yields_at)
        return Step(demand, victims, closes_at, yields_at, may_start)

    # -- who goes ----------------------------------------------------------------------------

    def _take(self, demand: Demand) -> EngineView:
        """The next one that is given up for the demand."""
        own = [
            (engine, line)
            for engine in self._state.each_of(demand.facts.key.model)
            for line in self._lines
            if engine in line
        ]
        for engine, line in own:
            line.remove(engine)
        place = self._first_due(demand) or self._first()
        best = [] if place is None else [place.engine]
        if own:  # outgrown ones are in an order of their own
            best += [engine for engine, _ in own]
            best.sort(key=lambda engine: (*self._giving_up.order(engine, demand), engine.id))
            for engine, line in own:
                line.add(engine, self._open_until(engine))
                self._plan.until(self._next_turn(engine, demand))
            if len(own) > 1:
                self._plan.compared |= {engine.id: engine for engine, _ in own}
        self._remove(best[0])
        return best[0]

    def _first_due(self, demand: Demand) -> Place | None:
        """Of those that drain already, and would for this demand as well."""
        now = self._giving_up.now
        for line in self._lines[:2]:
            for place in line.in_order():
                if place.closes_at > now:
                    self._plan.until(place.closes_at)
                    break
                if self._giving_up.yields_at(place.engine, demand) <= now:
                    return place
                self._plan.until(self._giving_up.overtime_ends_at(place.engine, demand))
        return None

    def _first(self) -> Place | None:
        for pinned in (0, 1):
            lines = self._lines[pinned::2]
            places = [place for line in lines if (place := line.first()) is not None]
            if len(places) > 1 and places[0].closes_at == places[1].closes_at:
                self._plan.compared |= {place.number: place.engine for place in places}
            if places:
                return min(places)
        return None

    def _next_turn(self, engine: EngineView, demand: Demand) -> float:
        """When another thing may hold for the engine and the demand."""
        now, closes_at = self._giving_up.now, self._giving_up.closes_at(engine, demand)
        if closes_at > now or engine.ready_at is None:
            return closes_at if closes_at > now else NEVER
        ends_at = self._giving_up.overtime_ends_at(engine, demand)
        return ends_at if ends_at > now else NEVER

    def _open_until(self, engine: EngineView) -> float:
        if self._priority is Priority.INTERACTIVE:
            return self._seen[engine.id].open_until
        return self._giving_up.open_until(engine, self._priority)

    def _remove(self, engine: EngineView) -> None:
        for line in self._lines:
            if engine in line:
                line.remove(engine)
        if (draining := self._draining.get(engine.key.model)) is not None and engine in draining:
            draining.remove(engine)
            if not draining:
                del self._draining[engine.key.model]


def _cheaper_from(compared: Collection[EngineView], state: SchedulerState, now: float) -> float:
    """When the order of these by what it costs to lose them is the next time another one, if none
    of them is used."""
    if len(compared) < 2:
        return NEVER
    costs = sorted(
        (load_s / (1.0 + max(now - engine.used_at, 0.0)), engine.id, load_s, engine.used_at)
        for engine in compared
        for load_s in (state.forecast.load_s(engine.facts),)
    )
    at = NEVER
    for (_, _, load_s, used_at), (_, _, next_s, next_used_at) in pairwise(costs):
        if next_s < load_s:  # it gets cheaper by less
            lead = next_s * (1.0 + now - used_at) - load_s * (1.0 + now - next_used_at)
            at = min(at, now + lead / (load_s - next_s))
    return at - _GRAIN_S
