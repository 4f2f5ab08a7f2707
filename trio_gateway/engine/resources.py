"""Pools and models as pages get them: what they hold, and what is known of them. Pure."""

from __future__ import annotations

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.scheduling.events import VariantFacts
from trio_gateway.engine.scheduling.model_load import model_load
from trio_gateway.engine.scheduling.state import SchedulerState


class PoolRow(msgspec.Struct, frozen=True):
    """`engines_max`: so many at a time. `memory_bytes`: what they may hold together; None: no
    limit. `used_bytes`: what is reserved for those that are there, as far as it is known.
    `measured_bytes`: the most that these were seen to hold. `other_bytes`: what other programs hold
    of the same memory. None where that is not known."""

    name: str
    engines_max: int
    memory_bytes: int | None
    used_bytes: int
    measured_bytes: int | None
    other_bytes: int | None = None


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
    engines; a text says why not, where it is not for want of being switched on."""

    name: str
    pool: str
    engine_type: str
    aliases: tuple[str, ...]
    hidden: bool
    state: str
    pinned: bool
    carryover: bool | str
    variants: tuple[VariantRow, ...]


def pool_rows(state: SchedulerState) -> list[PoolRow]:
    return [_pool_row(state, name) for name in state.pools]


def _pool_row(state: SchedulerState, name: str) -> PoolRow:
    pool = state.pools[name]
    here = [engine.facts for engine in state.engines.values() if engine.facts.pool == name]
    if pool.memory_bytes is None:
        used = sum(state.variants.memory_of(facts) or 0 for facts in here)
    else:
        used = sum(map(state.reserved_bytes, here))
    measured = [state.variants.measured(facts) for facts in here]
    known = [size for size in measured if size is not None]
    return PoolRow(
        name, pool.engines, pool.memory_bytes, used, sum(known) if known or not here else None
    )


def state_of(state: SchedulerState, model: str) -> str:
    """A model's, in a word."""
    keys = [facts.key for facts in state.variants[model]]
    load = model_load(state.engines_of(model), has_failed=any(map(state.back_off.has_failed, keys)))
    return "failed" if load.has_failed else load.state.value


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
