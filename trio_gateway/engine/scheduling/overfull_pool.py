"""Which engines leave a pool that holds more than it may. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trio_gateway.engine.scheduling.decisions import Decisions
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    Action,
    Cause,
)
from trio_gateway.engine.scheduling.evictions import is_idle, too_many
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    MemorySeen,
    Yield,
    YieldOver,
)
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.words import held_by


def relieve(
    pool: str, state: SchedulerState, decisions: Decisions, now: float, actions: list[Action]
) -> None:
    """Engines turned out to be larger than they were taken for: idle ones leave."""
    reason = f"the pool {pool} holds more memory than its limit"
    _relieve(pool, reason, state, decisions, now, actions)


def heed(
    event: MemorySeen | Yield | YieldOver,
    state: SchedulerState,
    decisions: Decisions,
    now: float,
    actions: list[Action],
) -> None:
    """Other programs hold memory, or are to have some. If it is what idle engines have, those
    leave; who leaves for a yield is decided after any event."""
    match event:
        case Yield():
            state.memory.add_yield(event)
        case YieldOver(number):
            state.memory.end_yield(number)
        case MemorySeen(pool, places) if pool in state.pools:
            state.memory.note_seen(event, now)
            who = held_by([holder for place in places for holder in place.holders])
            reason = f"other programs hold memory of the pool {pool}{who}"
            _relieve(pool, reason, state, decisions, now, actions)


def _relieve(
    pool: str,
    reason: str,
    state: SchedulerState,
    decisions: Decisions,
    now: float,
    actions: list[Action],
) -> None:
    for engine in [*too_many(pool, state, now, to_stay=True)]:
        if is_idle(engine):
            decisions.leave(engine, reason, Cause.MEMORY, actions)


def fit(
    pool: str, state: SchedulerState, decisions: Decisions, now: float, actions: list[Action]
) -> None:
    """The configuration gives less room: those leave as well that are in use, once they are not."""
    reason = f"the configuration was reloaded, and the pool {pool} has no room for it any more"
    devices = {device.name for device in state.pools[pool].devices} or {WHOLE}
    for engine in [*too_many(pool, state, now), *_elsewhere(pool, devices, state)]:
        if not engine.unloading:
            send_away(engine, reason, decisions, actions)


def _elsewhere(pool: str, devices: set[str], state: SchedulerState) -> Iterator[EngineView]:
    """Engines on devices that the pool has not any more."""
    if devices == {WHOLE}:
        return
    for engine in state.index.in_pool(pool):
        if not engine.leaving and not devices.issuperset(place for place, _ in engine.places):
            yield engine


def send_away(engine: EngineView, reason: str, decisions: Decisions, actions: list[Action]) -> None:
    """For the sake of another configuration: nothing calls it back."""
    engine.unloading = True
    if engine.serving:
        decisions.leave(engine, reason, Cause.RELOAD, actions)
