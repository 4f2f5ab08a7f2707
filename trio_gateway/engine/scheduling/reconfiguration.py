"""What a new configuration asks for: which engines go, and which tickets wait no more. Pure.

An engine of a variant that is as before lives on, with what was learned of it, its leases and its
turn; what holds for it otherwise (its pool, when it is idle for too long, how long its answers
take) holds at once. One that would be started otherwise now, or not at all, takes nothing new,
finishes what runs, and goes. So do those that a pool has no room for any more.
"""

from __future__ import annotations

import msgspec

from trio_gateway.engine.scheduling.admission import model_gone, too_large
from trio_gateway.engine.scheduling.decisions import Decisions, reject
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import Action, Reconfigured
from trio_gateway.engine.scheduling.overfull_pool import fit, send_away
from trio_gateway.engine.scheduling.state import SchedulerState


def reconfigure(
    event: Reconfigured, state: SchedulerState, decisions: Decisions, actions: list[Action]
) -> None:
    """Change the state; what follows from it for the others is decided as after any event."""
    decisions.window_s = event.fairness_window_s
    facts = {each.key: each for each in event.variants}
    gone = {key for key in state.variants.keys() if key not in facts}  # noqa: SIM118
    for engine in state.engines.values():
        if engine.key in facts and engine.key not in event.changed and not engine.outdated:
            engine.facts = facts[engine.key]
        else:
            _outdate(engine, state)
    here = {engine.facts.pool for engine in state.engines.values()}
    state.pools = {
        **{name: pool for name, pool in state.pools.items() if name in here},
        **event.pools,
    }
    for key in (*event.changed, *gone):
        state.forecast.forget_load(key)
        state.back_off.forget(key)
        state.uncounting.discard(key.model)
    state.variants.replace(event.variants, {*event.changed, *gone})
    state.engines_version += 1
    for engine in [e for e in state.engines.values() if e.outdated]:
        why = "it is started otherwise now" if engine.key in facts else "it is configured no more"
        send_away(engine, f"the configuration was reloaded, and {why}", decisions, actions)
    for pool in sorted(here):
        fit(pool, state, decisions, actions)
    _size_again(state, actions)


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
