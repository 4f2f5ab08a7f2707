"""What earlier runs have measured of variants: what the scheduler begins with. Pure."""

from __future__ import annotations

from trio_gateway.engine.scheduling.events import Remembered
from trio_gateway.engine.scheduling.state import SchedulerState, touch_all


def remember(event: Remembered, state: SchedulerState) -> None:
    """Only what is not known by now."""
    variants, forecast = state.variants, state.forecast
    of_key = {facts.key: facts for model in variants.all() for facts in model}
    for key, known in event.known.items():
        if (facts := of_key.get(key)) is None:
            continue
        if known.memory_bytes and variants.measured(facts) is None:
            variants.note_memory(facts, known.memory_bytes)
            variants.note_run(facts)  # that run is over, however it ended
        if known.load_s is not None and not forecast.has_loaded(facts):
            forecast.load_took(key, known.load_s)
        if known.wake_s is not None and forecast.wake_s(key) is None:
            forecast.wake_took(key, known.wake_s)
        if known.slots and variants.places(facts) is None:
            variants.note_slots(facts, known.slots, known.shared_tokens)
        forecast.remember(key.model, known.prompt_speed, known.speed)
    touch_all(state)
