"""What the scheduler is told of a variant before any engine of it has run."""

from __future__ import annotations

import math

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import (
    ModelConfig,
    VariantConfig,
)
from trio_gateway.engine.address import fixed_address
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.scheduling.events import VariantFacts, VariantKey

FIRST_LOAD_S = 10.0  # what a load is taken to last until one was measured, if `load_time` is unset


def facts_of(
    key: VariantKey,
    model: ModelConfig,
    variant: VariantConfig,
    kind: EngineKind,
    pool: PoolConfig | None,
) -> VariantFacts:
    """As the configuration has it. `pool` None: one without limits."""
    fixed = fixed_address(variant, kind)
    pools_longest_s = pool.longest_answer_s if pool is not None else None
    return VariantFacts(
        key=key,
        pool=model.pool,
        context=variant.holds,
        parallel=variant.parallel,
        endpoint=f"{fixed[0]} {fixed[1]}" if fixed else None,
        idle_timeout_s=variant.timeouts.idle_s,
        pinned=model.pinned,
        memory_bytes=variant.expected_memory_bytes,
        memory_declared=variant.memory_bytes is not None,
        load_time_s=variant.load_time_s or FIRST_LOAD_S,
        load_time_known=variant.load_time_s is not None,
        longest_answer_s=model.longest_answer_s or pools_longest_s or math.inf,
        devices=variant.devices,
    )
