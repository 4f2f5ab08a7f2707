"""StandingPlans: the plan of each pool, made again only when it may be another one. Pure.

Most events change nothing that a plan is made from: one more waits for a model that others wait for
already, or a slot goes from one to the next. So it is kept what the plans asked of each engine, and
compared where something was touched. What changes by itself is told by the plan: until when it
stands.

This is for pools that do nothing but count their engines. Where memory is counted, addresses are
shared or long answers end, one demand's choice depends on much more, and all is planned anew at
each event.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Changed, Demand, Demands
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import GivingUp
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.plain_pool import PlainPool
from trio_gateway.engine.scheduling.pool_plan import PoolPlan, Seen, seen_of
from trio_gateway.engine.scheduling.state import SchedulerState

_SPARE = 64  # engines that are gone, before they are forgotten


class StandingPlans:
    """`of_pool`: those of the pools that only count their engines."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._touched = state.touched.new_list()
        self._seen: dict[int, Seen] = {}  # by engine
        self._used_at: dict[int, float] = {}
        self._engines: dict[str, int] = {}  # how many a pool had
        self._counting: set[str] | None = None  # pools that only count their engines
        self._loose: set[str] = set()  # pools of which an engine that drains has changed
        self._yields = False
        self.of_pool: dict[str, PoolPlan] = {}

    def forget(self) -> None:
        """Pools, variants or limits are others now."""
        self._counting = None

    def sort_pools(self) -> bool:
        """Into those that only count and others; whether they may be others than before."""
        yields = bool(self._state.memory.yields)
        if self._counting is not None and self._yields == yields:
            return False
        self._yields, self._counting = yields, _counting(self._state)
        self.of_pool, self._seen, self._used_at = {}, {}, {}
        self._touched.update(engine.key.model for engine in self._state.engines.values())
        return True

    def renew(self, demands: Demands, window_s: float, now: float) -> Collection[str]:
        """Make those anew that may be others now; the pools that they are of."""
        giving_up = GivingUp(self._state, window_s, now)
        assert self._counting is not None, "the pools are sorted"
        changed = self._changed(giving_up, now)
        for pool, change in demands.changed.items():
            if pool in self._counting and self._concerns(pool, change, demands.of_pool(pool)):
                changed.add(pool)
        demands.changed.clear()
        for pool in changed:
            plain = PlainPool(pool, self._state, giving_up, self._seen)
            before = self.of_pool.get(pool)
            if before is not None and (pool in self._loose or before.firm_until <= now):
                before = None
            self.of_pool[pool] = plain.plan(demands.of_pool(pool), before)
        self._loose.clear()
        return changed

    def others(self) -> Sequence[str]:
        """The pools that are planned by the planner."""
        return [pool for pool in self._state.pools if pool not in self.of_pool]

    def _changed(self, giving_up: GivingUp, now: float) -> set[str]:
        state, changed = self._state, set[str]()
        assert self._counting is not None
        for model in self._touched:
            for engine in state.index.of_model(model):
                pool = engine.facts.pool
                if pool in self._counting and self._has_changed(engine, giving_up):
                    changed.add(pool)
        self._touched.clear()
        for pool in self._counting:
            count, plan = len(state.index.in_pool(pool)), self.of_pool.get(pool)
            if plan is None or plan.stands_until <= now or count != self._engines[pool]:
                changed.add(pool)
                self._engines[pool] = count
        if len(self._seen) > 2 * len(state.engines) + _SPARE:
            for number in [number for number in self._seen if number not in state.engines]:
                del self._seen[number], self._used_at[number]
        return changed

    def _concerns(self, pool: str, change: Changed, demands: Sequence[Demand]) -> bool:
        """Whether the plan may be another one with these demands."""
        plan = self.of_pool.get(pool)
        if plan is None or plan.looked_at is None or change.first < plan.looked_at:
            return True
        # All engines that are left are for any of the others, as long as these are as many.
        return (
            len(demands) - plan.looked_at + 1 < len(plan.for_any)
            or demands[-1].priority is not Priority.INTERACTIVE
            or not change.models.isdisjoint(plan.draining)
        )

    def _has_changed(self, engine: EngineView, giving_up: GivingUp) -> bool:
        """Whether what a plan asks of it is another thing than before."""
        before, used_at = self._seen.get(engine.id), self._used_at.get(engine.id)
        seen = seen_of(engine, self._state, giving_up)
        self._seen[engine.id], self._used_at[engine.id] = seen, engine.used_at
        plan = self.of_pool.get(engine.facts.pool)
        is_used = used_at != engine.used_at and (plan is None or engine.id in plan.compared)
        if before is not None and seen.oldest_at != before.oldest_at:
            # Most wait behind others, and who of them is the oldest was not asked.
            if plan is None or engine.id in plan.asked:
                before = None
            else:
                before = msgspec.structs.replace(before, oldest_at=seen.oldest_at)
        if seen == before and not is_used:
            return False
        if seen.state is EngineState.DRAINING:
            self._loose.add(engine.facts.pool)
        return True


def _counting(state: SchedulerState) -> set[str]:
    """The pools whose plans depend on nothing but their demands and engines. An address may be
    another pool's as well, and what is yielded is memory of a pool that has counted none before.
    """
    if state.memory.yields:
        return set()
    known = [facts for variants in state.variants.all() for facts in variants]
    known += [engine.facts for engine in state.engines.values()]
    others = {f.pool for f in known if f.endpoint is not None or f.longest_answer_s < math.inf}
    return {name for name, pool in state.pools.items() if not pool.is_limited} - others
