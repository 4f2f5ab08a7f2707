"""Activity: what a model has to do at the moment, for those who choose between models. Pure."""

from __future__ import annotations

import msgspec

from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState


class Activity(msgspec.Struct, frozen=True):
    """`requests`: those that run there or wait for it. `places`: how many the engines that run or
    start take at a time, or one would that is started. `fails`: no variant may be started for the
    moment, as the last starts have failed."""

    runs: bool = False
    starts: bool = False
    fails: bool = False
    requests: int = 0
    places: int = 1


def activity_of(state: SchedulerState, model: str, now: float) -> Activity:
    """Raises ModelGone: a reload has taken it away."""
    variants, engines = state.variants[model], state.engines_of(model)
    serving = [engine for engine in engines if engine.serving]
    runs = any(engine.state is EngineState.READY for engine in serving)
    queue = state.queues.get(model)
    return Activity(
        runs=runs,
        starts=not runs and bool(serving),
        fails=not serving
        and all(state.back_off.pause(facts.key, now) is not None for facts in variants),
        requests=sum(len(engine.leases) for engine in engines) + (len(queue) if queue else 0),
        places=sum(engine.slots or engine.facts.parallel or 1 for engine in serving)
        or max(facts.parallel or 1 for facts in variants),
    )
