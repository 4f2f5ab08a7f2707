"""Which engines leave a pool that holds more than it may. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trio_gateway.engine.scheduling.decisions import Decisions
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import Action, Cause
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState


def relieve(pool: str, state: SchedulerState, decisions: Decisions, actions: list[Action]) -> None:
    """Engines turned out to be larger than they were taken for: idle ones leave."""
    reason = f"the pool {pool} holds more memory than its limit"
    for engine in _over(pool, state):
        if not _is_idle(engine):
            return
        decisions.leave(engine, reason, Cause.MEMORY, actions)


def fit(pool: str, state: SchedulerState, decisions: Decisions, actions: list[Action]) -> None:
    """The configuration gives less room: those leave as well that are in use, once they are not."""
    reason = f"the configuration was reloaded, and the pool {pool} has no room for it any more"
    for engine in _over(pool, state):
        send_away(engine, reason, decisions, actions)


def send_away(engine: EngineView, reason: str, decisions: Decisions, actions: list[Action]) -> None:
    """For the sake of another configuration: nothing calls it back."""
    engine.unloading = True
    if engine.serving:
        decisions.leave(engine, reason, Cause.RELOAD, actions)


def _over(pool: str, state: SchedulerState) -> Iterator[EngineView]:
    """As many engines as are too many, or hold too much: idle ones first, the one that was idle
    longest, then those that load, then those in use; and pinned ones last of each kind."""
    limits = state.pools[pool]
    here = [e for e in state.engines.values() if e.facts.pool == pool and not e.leaving]
    engines_over = len(here) - limits.engines
    bytes_over = 0
    if limits.memory_bytes is not None:
        bytes_over = sum(state.reserved_bytes(e.facts) for e in here) - limits.memory_bytes
    is_pinned = state.variants.is_pinned
    order = lambda e: (not _is_idle(e), bool(e.leases), is_pinned(e.facts), e.used_at)  # noqa: E731
    for engine in sorted(here, key=order):
        if engines_over <= 0 and bytes_over <= 0:
            return
        engines_over -= 1
        bytes_over -= state.reserved_bytes(engine.facts)
        yield engine


def _is_idle(engine: EngineView) -> bool:
    return engine.state is EngineState.READY and not engine.leases
