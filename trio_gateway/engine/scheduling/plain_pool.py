"""The plan of a pool that does nothing but count its engines. Pure.

It is the plan of `swap_plan.py`, which a property holds it against, found without comparing each
demand with each engine. Only what has consequences now is worked out in full: where more demands
wait than engines are left, and none of those closes yet, each of them is to make way for one or
another.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import NamedTuple

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER, OVERTIME_LOADS, GivingUp
from trio_gateway.engine.scheduling.giving_up_line import GivingUpLine
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
    `oldest_at`: when the oldest of them came that waits for it; infinite: none does."""

    state: EngineState
    context: int
    unloading: bool
    is_pinned: bool
    ready_at: float
    load_s: float
    open_until: float
    oldest_at: float


def seen_of(engine: EngineView, state: SchedulerState, giving_up: GivingUp) -> Seen:
    queue = state.queues.get(engine.key.model)
    oldest = None if queue is None else queue.first_come(engine.context, Priority.INTERACTIVE)
    leaves = engine.state is EngineState.STOPPING
    return Seen(
        engine.state,
        engine.context,
        engine.unloading,
        state.variants.is_pinned(engine.facts),
        -math.inf if engine.ready_at is None else engine.ready_at,
        state.forecast.load_s(engine.facts),
        NEVER if leaves else giving_up.open_until(engine, Priority.INTERACTIVE),
        math.inf if oldest is None else oldest.arrived_at,
    )


class _Chosen(NamedTuple):
    """One that makes way, and when it closes and yields for the demand."""

    engine: EngineView
    line: GivingUpLine
    closes_at: float
    yields_at: float


class PlainPool:
    """One pool at one moment.

    Args:
        seen: of its engines, by number.
    """

    def __init__(
        self, pool: str, state: SchedulerState, giving_up: GivingUp, seen: Mapping[int, Seen]
    ) -> None:
        self._state, self._giving_up, self._seen = state, giving_up, seen
        self._now = giving_up.now
        self._limit, self._engines = state.pools[pool].engines, state.engines_in(pool)
        self._plan = PoolPlan()
        self._draining: dict[str, list[EngineView]] = {}  # by model, of those that stay
        here = [e for e in self._engines if seen[e.id].state is not EngineState.STOPPING]
        self._turn_to(Priority.INTERACTIVE, here)

    def _turn_to(self, priority: Priority, staying: Sequence[EngineView]) -> None:
        """The lines of those that stay: draining ones and others, each without and with a pin."""
        self._priority, self._draining, self._staying = priority, {}, len(staying)
        lines: list[list[tuple[EngineView, float]]] = [[], [], [], []]
        for engine in staying:
            seen = self._seen[engine.id]
            drains = seen.state is EngineState.DRAINING
            if drains:
                self._draining.setdefault(engine.key.model, []).append(engine)
            lines[2 * (not drains) + seen.is_pinned].append((engine, self._open_until(engine)))
        self._lines = [
            GivingUpLine(line, self._giving_up.cost, self._plan.compared) for line in lines
        ]

    def plan(self, demands: Sequence[Demand]) -> PoolPlan:
        """For all demands of the pool, in their order."""
        plan, promised = self._plan, 0
        for number, demand in enumerate(demands):
            over = self._staying + promised + 1 - self._limit
            if demand.priority is not self._priority:
                for line in self._lines:
                    line.note_compared()
                staying = sorted(self._engines_left(), key=attrgetter("id"))
                self._turn_to(demand.priority, staying)
            if not self._staying and over > 0:
                break
            if (back := self._draining_for(demand)) is not None:
                self._remove(back, next(line for line in self._lines if back in line))
                continue
            if over > self._staying:
                break
            chosen = self._choose(demand) if over > 0 else None
            if over == 1 and chosen is not None and self._is_for_any(chosen, demands, number):
                plan.for_any = self._engines_left()
                break
            victims, closes_at, yields_at = list[EngineView](), AT_ONCE, AT_ONCE
            while chosen is not None:
                self._remove(chosen.engine, chosen.line)
                victims.append(chosen.engine)
                closes_at = max(closes_at, chosen.closes_at)
                yields_at = max(yields_at, chosen.yields_at)
                chosen = self._choose(demand) if len(victims) < over else None
            if yields_at > self._now:
                plan.wake(closes_at if closes_at > self._now else yields_at)
            may_start = not victims and len(self._engines) + promised < self._limit
            promised += 1
            plan.steps.append(Step(demand, tuple(victims), closes_at, yields_at, may_start))
        for line in self._lines:
            line.note_compared()
        plan.until(_cheaper_from(plan.compared.values(), self._state, self._now))
        return plan

    def _engines_left(self) -> list[EngineView]:
        return [engine for line in self._lines for engine in line.engines()]

    def _draining_for(self, demand: Demand) -> EngineView | None:
        """As of the planner."""
        for engine in self._draining.get(demand.facts.key.model, ()):
            if not engine.unloading and engine.context >= demand.size:
                return engine
        return None

    def _is_for_any(self, first: _Chosen, demands: Sequence[Demand], number: int) -> bool:
        """Whether all engines that stay are to make way for this demand and those after it, none
        for a certain one of them by now."""
        if (
            first.closes_at <= self._now
            or len(demands) - number < self._staying
            or demands[-1].priority is not Priority.INTERACTIVE
            or any(map(len, self._lines[1::2]))  # pinned ones close in another order
        ):
            return False
        if self._draining:  # one of them may be called back
            models = {demand.facts.key.model for demand in demands[number:]}
            if not models.isdisjoint(self._draining):
                return False
        self._plan.wake(first.closes_at)
        return True

    # -- who goes ----------------------------------------------------------------------------

    def _choose(self, demand: Demand) -> _Chosen:
        """The next one that is given up for the demand. It stays until it is removed."""
        window_over_at = demand.since + self._giving_up.window_s
        for line in self._lines:
            if line:
                line.turn_to(window_over_at)
        of_model = self._state.each_of(demand.facts.key.model)
        own = [(engine, line) for engine in of_model for line in self._lines if engine in line]
        if not own:
            chosen = self._first_due(demand) or self._first(demand)
            assert chosen is not None, "not all are chosen"
            return chosen
        for engine, line in own:
            line.remove(engine)
        best = self._first_due(demand) or self._first(demand)
        for engine, line in own:
            line.add(engine, self._open_until(engine))
        if len(own) > 1:
            self._plan.compared |= {engine.id: engine for engine, _ in own}
        # Outgrown ones are in an order of their own.
        choices = [self._chosen(engine, line, demand) for engine, line in own]
        for each in choices:
            if each.yields_at > self._now:
                self._plan.until(each.closes_at if each.closes_at > self._now else each.yields_at)
        if best is not None:
            choices.append(best)
        return min(choices, key=lambda e: (*self._giving_up.order(e.engine, demand), e.engine.id))

    def _chosen(self, engine: EngineView, line: GivingUpLine, demand: Demand) -> _Chosen:
        closes_at = self._giving_up.closes_at(engine, demand)
        return _Chosen(engine, line, closes_at, self._yields_at(engine, closes_at, demand))

    def _first_due(self, demand: Demand) -> _Chosen | None:
        """Of those that drain already, and would for this demand as well."""
        for line in self._lines[:2]:
            for place in line.in_order():
                if place.closes_at > self._now:
                    self._plan.until(place.closes_at)
                    break
                yields_at = self._yields_at(place.engine, place.closes_at, demand)
                if yields_at <= self._now:
                    return _Chosen(place.engine, line, place.closes_at, yields_at)
                self._plan.until(yields_at)
        return None

    def _first(self, demand: Demand) -> _Chosen | None:
        for pinned in (0, 1):
            places = [
                (place, line)
                for line in self._lines[pinned::2]
                if (place := line.first()) is not None
            ]
            if len(places) > 1 and places[0][0].closes_at == places[1][0].closes_at:
                self._plan.compared |= {place.number: place.engine for place, _ in places}
            if places:
                place, line = min(places, key=itemgetter(0))
                yields_at = self._yields_at(place.engine, place.closes_at, demand)
                return _Chosen(place.engine, line, place.closes_at, yields_at)
        return None

    def _yields_at(self, engine: EngineView, closes_at: float, demand: Demand) -> float:
        """As `GivingUp.yields_at`, from what was seen."""
        if self._priority is not Priority.INTERACTIVE:
            return self._giving_up.yields_at(engine, demand)
        if closes_at > self._now:
            return closes_at
        seen = self._seen[engine.id]
        loads_s = seen.load_s + self._state.forecast.load_s(demand.facts)
        ends_at = seen.ready_at + OVERTIME_LOADS * loads_s
        return ends_at if ends_at > self._now and seen.oldest_at < demand.since else closes_at

    def _open_until(self, engine: EngineView) -> float:
        if self._priority is Priority.INTERACTIVE:
            return self._seen[engine.id].open_until
        return self._giving_up.open_until(engine, self._priority)

    def _remove(self, engine: EngineView, line: GivingUpLine) -> None:
        line.remove(engine)
        self._staying -= 1
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
