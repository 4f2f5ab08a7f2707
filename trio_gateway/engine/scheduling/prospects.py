"""What an engine will do next, and when, as a sentence for whoever looks on. Pure.

It is found by the plan that the scheduler carries out, made once for all engines of a moment.
"""

from __future__ import annotations

import math

from trio_gateway.engine.scheduling.demands import Demands
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import Cause
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Planner, Step


class Prospects:
    """Of the engines at one moment."""

    def __init__(self, state: SchedulerState, window_s: float, now: float) -> None:
        self._state, self._now = state, now
        self._steps: dict[int, Step] = {}  # by the engines that make way in them
        if state.queues:
            demands, _, _ = Demands(state).now(now)
            for step in Planner(state, window_s, now).steps(demands):
                self._steps |= dict.fromkeys((victim.id for victim in step.victims), step)

    def of(self, engine: EngineView) -> str:
        step = self._steps.get(engine.id)
        target = None if step is None else _target(engine, step)
        match engine.state:
            case EngineState.STARTING:
                return self._loading(engine)
            case EngineState.DRAINING:
                return f"{_leaving(engine, target)}: {_running(engine)}"
            case EngineState.READY if step is not None:
                return self._making_way(engine, step)
            case EngineState.READY:
                return self._staying(engine)
        return "is being stopped" if target is None else f"is being stopped for {target}"

    def _loading(self, engine: EngineView) -> str:
        load_s = self._state.forecast.known_start_s(engine)
        if engine.is_waking and (load_s is None or engine.started_at + load_s <= self._now):
            return "takes requests once its machine is awake"
        if load_s is None:
            return "takes requests once it is loaded"
        left_s = engine.started_at + load_s - self._now
        return f"takes requests in about {_time(left_s)}" if left_s > 0 else "is about to be ready"

    def _making_way(self, engine: EngineView, step: Step) -> str:
        target, now = _target(engine, step), self._now
        if step.closes_at == math.inf:
            return f"goes on; {target} waits until it is idle"
        if step.closes_at > now:
            return (
                f"takes requests for {_time(step.closes_at - now)} more, then drains for {target}"
            )
        if now < step.yields_at < math.inf:
            left = _time(step.yields_at - now)
            return f"serves what came before {target}, for {left} at most, then drains for it"
        return f"drains for {target}: {_running(engine)}"

    def _staying(self, engine: EngineView) -> str:
        idle_s = self._state.variants.idle_timeout_s(engine.facts)
        if idle_s == math.inf:
            return "stays loaded"
        if engine.leases:
            return f"stops once nobody has asked for {_time(idle_s)}"
        left_s = engine.used_at + idle_s - self._now
        return f"stops in {_time(left_s)} if nobody asks" if left_s > 0 else "stops now"


def _target(engine: EngineView, step: Step) -> str:
    key = step.demand.facts.key
    return str(key) if key.model == engine.key.model else key.model


def _leaving(engine: EngineView, target: str | None) -> str:
    match engine.cause:
        case Cause.UNLOAD:
            return "is being unloaded"
        case Cause.SHUTDOWN:
            return "ends with the gateway"
        case Cause.RELOAD:
            return "goes, as the configuration is another"
        case Cause.YIELD:
            return "makes room for another program"
        case Cause.MEMORY:
            return "makes room in its pool"
    return "drains" if target is None else f"drains for {target}"


def _running(engine: EngineView) -> str:
    count = len(engine.leases)
    reads = any(lease.read_bytes is not None for lease in engine.leases.values())
    noun = "request" if reads else "answer"
    return f"1 {noun} is running" if count == 1 else f"{count} {noun}s are running"


def _time(seconds: float) -> str:
    """Rounded up, as what is left."""
    if seconds < 600:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min"
