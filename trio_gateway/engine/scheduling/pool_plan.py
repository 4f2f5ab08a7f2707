"""The plan of a pool that does nothing but count its engines, and what it is made from. Pure."""

from __future__ import annotations

import math

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import NEVER, GivingUp
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Step


class PoolPlan(msgspec.Struct):
    """`steps` as of the planner; `for_any`: engines that make way for one or another demand.
    `wake_at`: when the next engine is to take less, or to go. If no demand and no engine changes,
    the plan is the same until `stands_until`; those that were `compared` may not even be used.
    `firm`: the first steps for which an engine goes, which drains already; they stay the same until
    `firm_until` if no engine that drains changes. `asked`: engines of which it was asked who waits
    for them.

    Where engines make way for any demand, `looked_at`: how many demands were looked at before that;
    `draining`: models of engines that drain and are left.
    """

    steps: list[Step] = []
    for_any: list[EngineView] = []
    wake_at: float = NEVER
    stands_until: float = NEVER
    compared: dict[int, EngineView] = {}
    firm: list[Step] = []
    firm_until: float = NEVER
    asked: set[int] = set()
    looked_at: int | None = None
    draining: frozenset[str] = frozenset()

    def wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)
        self.until(at)

    def until(self, at: float) -> None:
        self.stands_until = min(self.stands_until, at)

    def until_due(self, at: float) -> None:
        """Another engine may be the first to go from then on of those that drain."""
        self.firm_until = min(self.firm_until, at)
        self.until(at)


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
