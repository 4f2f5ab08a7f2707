"""What events about engines that run elsewhere change. Pure."""

from __future__ import annotations

from trio_gateway.engine.scheduling.elsewhere_events import (
    ElsewhereEvent,
    EngineWaking,
    SlotsChanged,
)
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.state import SchedulerState, note_change


def note(event: ElsewhereEvent, state: SchedulerState) -> None:
    if (engine := state.engines.get(event.engine)) is None:
        return
    match event:
        case SlotsChanged(_, slots):
            _resize(engine, slots, state)
        case EngineWaking():
            engine.is_waking = True
            state.touched.add(engine.key.model)


def _resize(engine: EngineView, slots: int, state: SchedulerState) -> None:
    """Those that have been granted go on, however many they are."""
    engine.slots = slots
    note_change(engine, state)
    if not engine.outdated:
        state.variants.note_slots(engine.facts, slots, engine.shared_tokens)
