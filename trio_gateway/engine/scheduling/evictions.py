"""Which engines of a pool are too many, or hold too much. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.pool_memory import share_of
from trio_gateway.engine.scheduling.state import SchedulerState


def too_many(
    pool: str, state: SchedulerState, now: float, *, to_stay: bool = False, draining: bool = False
) -> Iterator[EngineView]:
    """As many engines as are too many, or hold too much: idle ones first, then those that load,
    then those in use; of each kind pinned ones last, and the cheapest to lose first, which is what
    a load costs, less the longer it is idle.

    Args:
        to_stay: they need not go for the last half of the reserve.
        draining: those that are on their way already count as well, and are the first.
    """
    memory = state.memory
    here = [
        engine
        for engine in state.index.in_pool(pool)
        if not engine.leaving or (draining and engine.state is EngineState.DRAINING)
    ]
    engines_over = len(here) - state.pools[pool].engines
    over = memory.over(pool, [(engine.facts, engine.places) for engine in here], to_stay=to_stay)

    def order(engine: EngineView) -> tuple[bool, bool, bool, bool, float]:
        load_s, idle_s = state.forecast.load_s(engine.facts), max(now - engine.used_at, 0.0)
        return (
            not engine.leaving,
            not is_idle(engine),
            bool(engine.leases),
            state.variants.is_pinned(engine.facts),
            load_s / (1.0 + idle_s),
        )

    for engine in sorted(here, key=order):
        if engines_over <= 0 and all(n <= 0 for n in over.values()):
            return
        held = {
            place: memory.reserved(engine.facts, place, share_of(engine.places, place))
            for place in over
        }
        if engines_over <= 0 and not any(over[place] > 0 and held[place] for place in over):
            continue  # it is elsewhere
        engines_over -= 1
        over = {place: over[place] - held[place] for place in over}
        yield engine


def is_idle(engine: EngineView) -> bool:
    return engine.state is EngineState.READY and not engine.leases
