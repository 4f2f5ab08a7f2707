"""What it means that an engine works on more or fewer requests at a time than before. Pure."""

from __future__ import annotations

from trio_gateway.engine.scheduling.slots_event import SlotsChanged
from trio_gateway.engine.scheduling.state import SchedulerState


def resize(event: SlotsChanged, state: SchedulerState) -> None:
    """Those that have been granted go on, however many they are."""
    if (engine := state.engines.get(event.engine)) is None:
        return
    engine.slots = event.slots
    state.note_change(engine)
    if not engine.outdated:
        state.variants.note_slots(engine.facts, event.slots, engine.shared_tokens)
