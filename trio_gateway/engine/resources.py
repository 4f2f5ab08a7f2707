"""Pools and models as pages get them: what they hold, and what is known of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    VariantFacts,
)
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
)
from trio_gateway.engine.scheduling.model_load import model_load
from trio_gateway.engine.scheduling.pool_memory import share_of
from trio_gateway.engine.scheduling.state import SchedulerState


class DeviceRow(msgspec.Struct, frozen=True):
    """A device of a pool: what its engines may hold there now, and what is reserved for those that
    are there. `other_bytes`: what other programs hold; None: not known."""

    name: str
    memory_bytes: int | None
    used_bytes: int
    other_bytes: int | None


class PoolRow(msgspec.Struct, frozen=True):
    """`engines_max`: so many at a time. `memory_bytes`: what they may hold together now; None: no
    limit, or not known yet. `used_bytes`: what is reserved for those that are there, as far as it
    is known. `measured_bytes`: the most that these were seen to hold. `other_bytes`: what other
    programs hold of the same memory. None where that is not known. `is_auto`: the limit is what
    other programs leave. `yielded_bytes`: what is kept free of it for other programs."""

    name: str
    engines_max: int
    memory_bytes: int | None
    used_bytes: int
    measured_bytes: int | None
    other_bytes: int | None = None
    is_auto: bool = False
    yielded_bytes: int = 0
    devices: tuple[DeviceRow, ...] = ()


class VariantRow(msgspec.Struct, frozen=True):
    """`context` in tokens; `parallel`: requests at a time. `memory_is` and `load_is`: where the
    number is from; all four are None where nothing is known."""

    name: str
    context: int
    parallel: int | None
    memory_bytes: int | None
    memory_is: str | None
    load_s: float | None
    load_is: str | None


class ModelRow(msgspec.Struct, frozen=True):
    """`state`: unloaded, loading, loaded, or failed. `carryover`: whether its KV caches outlive its
    engines; a text says why not, where it is not for want of being switched on. `choices`: the
    names that mean it or another model, as far as lists show them. `from`: which entry of the
    configuration brings it from another gateway, which also says its state."""

    name: str
    pool: str
    engine_type: str
    aliases: tuple[str, ...]
    hidden: bool
    state: str
    pinned: bool
    carryover: bool | str
    variants: tuple[VariantRow, ...]
    choices: tuple[str, ...] = ()
    peer: str | None = msgspec.field(name="from", default=None)


def pool_rows(state: SchedulerState) -> list[PoolRow]:
    return [_pool_row(state, name) for name in state.pools]


def _pool_row(state: SchedulerState, name: str) -> PoolRow:
    pool, memory = state.pools[name], state.memory
    here = [*state.index.in_pool(name)]
    if pool.is_limited and memory.places(name):
        used = sum(_reserved(state, engine) for engine in here)
    else:
        used = sum(state.variants.memory_of(engine.facts) or 0 for engine in here)
    measured = [state.variants.measured(engine.facts) for engine in here]
    known = [size for size in measured if size is not None]
    devices = tuple(_device_row(state, name, device.name, here) for device in pool.devices)
    limit = memory.base(name, WHOLE) if pool.is_limited else None
    if limit is None and devices and all(d.memory_bytes is not None for d in devices):
        limit = sum(device.memory_bytes or 0 for device in devices)
    yielded = [y for y in memory.yields.values() if y.asked.pool == name]
    return PoolRow(
        name,
        pool.engines,
        limit,
        used,
        sum(known) if known or not here else None,
        is_auto=pool.is_watched,
        yielded_bytes=sum(y.asked.memory_bytes for y in yielded),
        devices=devices,
    )


def _reserved(state: SchedulerState, engine: EngineView) -> int:
    """What its pool must have for it, on all its devices together."""
    memory = state.memory
    places = [p for p in memory.places(engine.facts.pool) if p != WHOLE] or [WHOLE]
    shares = ((place, share_of(engine.places, place)) for place in places)
    return sum(memory.reserved(engine.facts, place, share) for place, share in shares)


def _device_row(
    state: SchedulerState, pool: str, device: str, here: Sequence[EngineView]
) -> DeviceRow:
    memory = state.memory
    is_known = memory.capacity(pool, device) is not None
    seen = next((seen for seen in memory.holders(pool) if seen.place == device), None)
    used = sum(
        memory.reserved(engine.facts, device, share_of(engine.places, device)) for engine in here
    )
    return DeviceRow(
        name=device,
        memory_bytes=memory.base(pool, device) if is_known else None,
        used_bytes=used if is_known else 0,
        other_bytes=None if seen is None else seen.others_bytes,
    )


def state_of(state: SchedulerState, model: str) -> str:
    """A model's, in a word."""
    keys = [facts.key for facts in state.variants[model]]
    load = model_load(state.engines_of(model), has_failed=any(map(state.back_off.has_failed, keys)))
    return load.word


def model_row(state: SchedulerState, model: ModelConfig, carryover: bool | str) -> ModelRow:
    known = state.variants[model.name]
    return ModelRow(
        name=model.name,
        pool=model.pool,
        engine_type=model.engine.value,
        aliases=model.aliases,
        hidden=model.hidden,
        state=state_of(state, model.name),
        pinned=state.variants.is_pinned(known[0]),
        carryover=carryover,
        variants=tuple(_variant_row(state, facts) for facts in known),
        peer=model.peer,
    )


def _variant_row(state: SchedulerState, facts: VariantFacts) -> VariantRow:
    variants, forecast = state.variants, state.forecast
    memory, load_s = variants.memory_of(facts), forecast.known_load_s(facts)
    memory_is = load_is = None
    if memory is not None:
        memory_is = "estimated"
        if facts.memory_declared:
            memory_is = "declared"
        elif memory == variants.measured(facts):
            memory_is = "measured"
    if load_s is not None:
        load_is = "measured" if forecast.has_loaded(facts) else "declared"
    return VariantRow(
        name=facts.key.variant,
        context=variants.context_of(facts),
        parallel=variants.places(facts),
        memory_bytes=memory,
        memory_is=memory_is,
        load_s=None if load_s is None else round(load_s, 3),
        load_is=load_is,
    )
