"""What a new configuration asks for: which engines go, and which tickets wait no more. Pure.

An engine of a variant that is as before lives on, with what was learned of it, its leases and its
turn; what holds for it otherwise (its pool, when it is idle for too long, how long its answers
take) holds at once. One that would be started otherwise now, or not at all, takes nothing new,
finishes what runs, and goes. So do those that a pool has no room for any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.admission import model_gone, too_large
from trio_gateway.engine.scheduling.decisions import Decisions, reject
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    Action,
    Reconfigured,
)
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    YieldEnded,
)
from trio_gateway.engine.scheduling.overfull_pool import fit, send_away
from trio_gateway.engine.scheduling.state import SchedulerState, touch_all


def reconfigure(
    event: Reconfigured,
    state: SchedulerState,
    decisions: Decisions,
    now: float,
    actions: list[Action],
) -> None:
    """Change the state; what follows from it for the others is decided as after any event."""
    decisions.reconfigured(event.fairness_window_s)
    facts = {each.key: each for each in event.variants}
    gone = state.variants.all_keys() - facts.keys()
    for engine in state.engines.values():
        if engine.key in facts and engine.key not in event.changed and not engine.outdated:
            engine.facts = facts[engine.key]
        else:
            _outdate(engine, state)
    state.index.make_again(state.engines.values())
    here = {engine.facts.pool for engine in state.engines.values()}
    _change_pools(event.pools, here, state, actions)
    for key in (*event.changed, *gone):
        state.forecast.forget_load(key)
        state.back_off.forget(key)
        state.uncounting.discard(key.model)
    state.variants.replace(event.variants, {*event.changed, *gone})
    state.engines_version += 1
    touch_all(state)
    state.idle.note_timeouts(state.engines.values())
    for engine in [e for e in state.engines.values() if e.outdated]:
        why = "it is started otherwise now" if engine.key in facts else "it is configured no more"
        send_away(engine, f"the configuration was reloaded, and {why}", decisions, actions)
    for pool in sorted(here):
        fit(pool, state, decisions, now, actions)
    _size_again(state, actions)


def _change_pools(
    pools: Mapping[str, PoolConfig], here: set[str], state: SchedulerState, actions: list[Action]
) -> None:
    """`here`: those that have engines, which may be in one that is gone."""
    memory = state.memory
    memory.pools = {name: pool for name, pool in memory.pools.items() if name in here} | {**pools}
    for number, yielded in [*memory.yields.items()]:
        asked = yielded.asked
        device_names = (
            [device.name for device in pools[asked.pool].devices] if (asked.pool in pools) else []
        )
        if asked.pool not in pools or yielded.place not in (device_names or [WHOLE]):
            memory.end_yield(number)
            reason = "the configuration was reloaded, and has no such memory any more"
            actions.append(YieldEnded(number, reason))


def _outdate(engine: EngineView, state: SchedulerState) -> None:
    """What it holds is known now, and is forgotten with its variant."""
    if not engine.outdated:
        engine.outdated, known = True, state.variants.memory_of(engine.facts)
        engine.facts = msgspec.structs.replace(
            engine.facts, memory_bytes=known, memory_declared=True
        )


def _size_again(state: SchedulerState, actions: list[Action]) -> None:
    """Each that waits is looked at as if it came now."""
    for ticket in [*state.tickets.values()]:
        if ticket.model not in state.variants:
            reject(state, model_gone(ticket), actions)
        elif (sizes := state.variants.sizes_for(ticket)) is None:
            reject(state, too_large(ticket, state), actions)
        else:
            state.queues[ticket.model].resize(ticket, *sizes)
