"""The plan of a pool that does nothing but count its engines. Pure.

It is the plan of `swap_plan.py`, which a property holds it against, found without comparing each
demand with each engine. Only what has consequences now is worked out in full: where more demands
wait than engines are left, and none of those closes yet, each of them is to make way for one or
another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise, takewhile
from operator import attrgetter, itemgetter
from typing import NamedTuple

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER, OVERTIME_LOADS, GivingUp
from trio_gateway.engine.scheduling.giving_up_line import GivingUpLine
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.pool_plan import PoolPlan, Seen
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Step

# Who is cheaper to lose is known this long before it changes: times are sums of floats.
_GRAIN_S = 1e-6


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
        self._limit, self._engines = state.pools[pool].engines, state.index.in_pool(pool)
        self._plan = PoolPlan()
        self._draining: dict[str, list[EngineView]] = {}  # by model, of those that stay
        self._lines: list[GivingUpLine] = []
        self._priority, self._staying = Priority.INTERACTIVE, 0

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

    def plan(self, demands: Sequence[Demand], before: PoolPlan | None = None) -> PoolPlan:
        """For all demands of the pool, in their order.

        Args:
            before: the plan that was, if its firm steps are.
        """
        plan, promised = self._plan, 0
        staying = [e for e in self._engines if self._seen[e.id].state is not EngineState.STOPPING]
        firm = [] if before is None else self._still_firm(before, demands, staying)
        if before is not None and firm:
            promised = self._limit - len(staying)
            plan.steps = [self._free(demands[number], number) for number in range(promised)] + firm
            plan.firm = firm
            plan.until_due(before.firm_until)
            going = {step.victims[0].id for step in firm}
            plan.compared |= {number: e for number, e in before.compared.items() if number in going}
            plan.asked |= before.asked
            staying = [engine for engine in staying if engine.id not in going]
            promised += len(firm)
        self._turn_to(Priority.INTERACTIVE, staying)
        if demands and demands[-1].priority is not Priority.INTERACTIVE:
            plan.until(self._now)  # more is asked for it than what is seen of an engine
        is_firm = True
        for number in range(promised, len(demands)):
            demand = demands[number]
            over = self._staying + promised + 1 - self._limit
            if demand.priority is not self._priority:
                for line in self._lines:
                    line.note_compared()
                left = sorted(self._engines_left(), key=attrgetter("id"))
                self._turn_to(demand.priority, left)
            if not self._staying and over > 0:
                break
            if (back := self._draining_for(demand)) is not None:
                self._remove(back, next(line for line in self._lines if back in line))
                is_firm = False
                continue
            if over > self._staying:
                break
            if over <= 0:
                plan.steps.append(self._free(demand, promised))
            else:
                chosen = self._choose(demand)
                if over == 1 and self._is_for_any(chosen, demands, number):
                    plan.for_any, plan.looked_at = self._engines_left(), number + 1
                    plan.draining = frozenset(self._draining)
                    break
                step = self._step(demand, chosen, over)
                plan.steps.append(step)
                is_firm = is_firm and step.yields_at <= self._now and _drains(step)
                if is_firm:
                    plan.firm.append(step)
            promised += 1
        for line in self._lines:
            line.note_compared()
        plan.until_due(_cheaper_from(plan.compared.values(), self._state, self._now))
        return plan

    def _still_firm(
        self, before: PoolPlan, demands: Sequence[Demand], staying: Sequence[EngineView]
    ) -> list[Step]:
        free = self._limit - len(staying)
        seen = self._seen
        drains = {e.key.model for e in staying if seen[e.id].state is EngineState.DRAINING}
        if free < 0 or any(demand.facts.key.model in drains for demand in demands[:free]):
            return []
        pairs = zip(before.firm, demands[free:], strict=False)
        same = takewhile(lambda pair: pair[0].demand is pair[1] and _drains(pair[0]), pairs)
        return [step for step, _ in same]

    def _free(self, demand: Demand, promised: int) -> Step:
        """There is room for it, once what stops is gone."""
        may_start = len(self._engines) + promised < self._limit
        return Step(demand, (), AT_ONCE, AT_ONCE, may_start)

    def _step(self, demand: Demand, chosen: _Chosen, over: int) -> Step:
        victims, closes_at, yields_at = [chosen.engine], chosen.closes_at, chosen.yields_at
        self._remove(chosen.engine, chosen.line)
        while len(victims) < over:
            chosen = self._choose(demand)
            self._remove(chosen.engine, chosen.line)
            victims.append(chosen.engine)
            closes_at = max(closes_at, chosen.closes_at)
            yields_at = max(yields_at, chosen.yields_at)
        if yields_at > self._now:
            self._plan.wake(closes_at if closes_at > self._now else yields_at)
        return Step(demand, tuple(victims), closes_at, yields_at, may_start=False)

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
        of_model = self._state.index.of_model(demand.facts.key.model)
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
                self._plan.until_due(
                    each.closes_at if each.closes_at > self._now else each.yields_at
                )
        if best is not None:
            choices.append(best)
        self._plan.asked |= {each.engine.id for each in choices}  # for their order
        return min(choices, key=lambda e: (*self._giving_up.order(e.engine, demand), e.engine.id))

    def _chosen(self, engine: EngineView, line: GivingUpLine, demand: Demand) -> _Chosen:
        closes_at = self._giving_up.closes_at(engine, demand)
        return _Chosen(engine, line, closes_at, self._yields_at(engine, closes_at, demand))

    def _first_due(self, demand: Demand) -> _Chosen | None:
        """Of those that drain already, and would for this demand as well."""
        for line in self._lines[:2]:
            for place in line.in_order():
                if place.closes_at > self._now:
                    self._plan.until_due(place.closes_at)
                    break
                yields_at = self._yields_at(place.engine, place.closes_at, demand)
                if yields_at <= self._now:
                    return _Chosen(place.engine, line, place.closes_at, yields_at)
                self._plan.until_due(yields_at)
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
        if ends_at <= self._now:
            return closes_at
        self._plan.asked.add(engine.id)
        return ends_at if seen.oldest_at < demand.since else closes_at

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


def _drains(step: Step) -> bool:
    """Whether the engine that makes way for it does so already, and is the only one."""
    return len(step.victims) == 1 and step.victims[0].state is EngineState.DRAINING


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
