"""When an engine makes way for a demand, and which is given up first. Pure.

The rules are in `swap_plan.py`.
"""

from __future__ import annotations

import math

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState

AT_ONCE = -math.inf
NEVER = math.inf  # not before something else happens

OVERTIME_LOADS = 2.0


class GivingUp:
    """Of the engines as they are at one moment."""

    def __init__(self, state: SchedulerState, window_s: float, now: float) -> None:
        self._state, self.window_s, self.now = state, window_s, now

    def closes_at(self, engine: EngineView, demand: Demand) -> float:
        """When this engine is to take no newcomers any more for the demand's sake."""
        open_until = self.open_until(engine, demand.priority)
        if open_until in (AT_ONCE, NEVER):
            return open_until
        return max(demand.since + self.window_s, open_until)

    def open_until(self, engine: EngineView, priority: Priority) -> float:
        """The same for demands of that priority, however short they have waited."""
        state = self._state
        if engine.state is EngineState.STARTING:
            # One that a batch ticket waits for is not given up either: it would be loaded for
            # nothing, again and again.
            return NEVER if state.is_wanted(engine, Priority.BATCH) else AT_ONCE
        wanted = engine.leases or state.is_wanted(engine, priority)
        queue = state.queues.get(engine.key.model)
        # One that is counted there may turn out to want it.
        if not wanted and not (queue is not None and queue.holds(priority)):
            return AT_ONCE
        if priority is Priority.BATCH and self._is_interactive(engine):
            return NEVER
        assert engine.ready_at is not None
        return engine.ready_at + self.window_s

    def yields_at(self, engine: EngineView, demand: Demand) -> float:
        """When it is to make way: at once when it closes, or after its overtime."""
        closes_at = self.closes_at(engine, demand)
        if closes_at > self.now or engine.ready_at is None:
            return closes_at
        overtime_ends_at = self.overtime_ends_at(engine, demand)
        if overtime_ends_at <= self.now:
            return closes_at
        waits = self._state.oldest_before(engine, demand.since, demand.priority) is not None
        return overtime_ends_at if waits else closes_at

    def overtime_ends_at(self, engine: EngineView, demand: Demand) -> float:
        """Of an engine that is, or was, ready."""
        forecast = self._state.forecast
        assert engine.ready_at is not None
        loads_s = forecast.load_s(engine.facts) + forecast.load_s(demand.facts)
        return engine.ready_at + OVERTIME_LOADS * loads_s

    def _is_interactive(self, engine: EngineView) -> bool:
        return self._state.is_wanted(engine, Priority.INTERACTIVE) or any(
            lease.priority is Priority.INTERACTIVE for lease in engine.leases.values()
        )

    def cost(self, engine: EngineView) -> float:
        """What it costs to lose it."""
        idle_s = max(self.now - engine.used_at, 0.0)
        return self._state.forecast.load_s(engine.facts) / (1.0 + idle_s)

    def order(self, engine: EngineView, demand: Demand) -> tuple[bool, bool, float, bool, float]:
        """Order of the engines to give up for a demand, the first one first.

        That an engine drains must not make it the choice of a demand that would not let it drain
        yet: it would be called back, drained for the other demand again, and so on for ever.
        """
        drains = engine.state is EngineState.DRAINING
        outgrown = engine.key.model == demand.facts.key.model
        return (
            not (drains and self.yields_at(engine, demand) <= self.now),
            self._state.variants.is_pinned(engine.facts) and not outgrown,
            self.closes_at(engine, demand),
            not outgrown,
            self.cost(engine),
        )
