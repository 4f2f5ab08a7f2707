"""Compares what the variants need with what their pools have, once a file is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.config.memory_estimate import estimate_variants
from trio_gateway.config.pool_schema import VARIABLES, PoolConfig
from trio_gateway.config.reading.fields import Mistakes
from trio_gateway.config.schema import (
    ModelConfig,
    VariantConfig,
)
from trio_gateway.config.sizes import format_over, format_size
from trio_gateway.gguf.memory import MemoryEstimate

UNKNOWN_MEMORY = "how much memory it needs is unknown"


def with_estimates(
    mistakes: Mistakes,
    notes: list[str],
    models: Sequence[ModelConfig],
    paths: Sequence[Sequence[str]],
    pools: Mapping[str, PoolConfig],
) -> tuple[ModelConfig, ...]:
    """The models, their variants with an estimate where they declare no memory.

    `paths`: for each model, the path of each of its variants in the file. A variant that is
    larger than its pool is an error; one of which nothing is known gets a note. A pool without
    `memory` costs nothing: no file is read for it.
    """
    limited = {name for name, pool in pools.items() if pool.is_limited}
    undeclared = [
        v for m in models if m.pool in limited for v in m.variants if v.memory_bytes is None
    ]
    # By identity: two variants may be equal in all they say.
    estimates = dict(zip(map(id, undeclared), estimate_variants(undeclared), strict=True))
    result = []
    for model, where in zip(models, paths, strict=True):
        pool = pools.get(model.pool)
        variants = []
        for variant, path in zip(model.variants, where, strict=True):
            estimate = estimates.get(id(variant))
            if estimate is not None:
                variant = msgspec.structs.replace(
                    variant, estimated_memory_bytes=estimate.total_bytes
                )
            variants.append(variant)
            if pool is not None:
                _check_devices(mistakes, path, variant, pool)
                if pool.is_limited:
                    _compare(mistakes, notes, path, variant, estimate, pool)
        result.append(msgspec.structs.replace(model, variants=tuple(variants)))
    return tuple(result)


def _compare(
    mistakes: Mistakes,
    notes: list[str],
    path: str,
    variant: VariantConfig,
    estimate: MemoryEstimate | None,
    pool: PoolConfig,
) -> None:
    needed, limit = variant.expected_memory_bytes, _limit(variant, pool)
    if needed is None:
        notes.append(
            f"{path}: {UNKNOWN_MEMORY}; it will run alone in its pool "
            f'"{pool.name}" until it has been measured. Declare its `memory`'
        )
    elif limit is not None and needed > limit:
        if estimate is None:
            reason, cure = "declared", "declare less if it needs less"
        else:
            reason = (
                f"estimated from its GGUF: {format_size(estimate.weights_bytes)} of weights, "
                f"{format_size(estimate.kv_bytes)} of KV cache, "
                f"{format_size(estimate.buffer_bytes)} of buffers"
            )
            cure = "give it a smaller context or cache type, declare its `memory`"
        needs, has = format_over(needed, limit)
        mistakes.add(
            path,
            f'needs {needs} ({reason}), but its pool "{pool.name}" has '
            f"{has}; {cure}, or raise pools.{pool.name}.memory",
        )


def _limit(variant: VariantConfig, pool: PoolConfig) -> int | None:
    """What the pool may ever have for it, if the file says so."""
    declared = [device.memory_bytes for device in pool.devices]
    known = sorted((size for size in declared if size is not None), reverse=True)
    if not declared or len(known) < len(declared):
        return pool.memory_bytes
    of_devices = sum(known[: variant.devices])
    return of_devices if pool.memory_bytes is None else min(of_devices, pool.memory_bytes)


def _check_devices(mistakes: Mistakes, path: str, variant: VariantConfig, pool: PoolConfig) -> None:
    if variant.devices > max(len(pool.devices), 1):
        has = f"has {len(pool.devices)}" if pool.devices else "names none"
        mistakes.add(
            f"{path}.devices",
            f'it is to use {variant.devices} devices, and its pool "{pool.name}" {has}; see '
            f"pools.{pool.name}.devices",
        )
    for device in pool.devices:
        for name in VARIABLES.get(device.kind, ()):
            if name in variant.env:
                mistakes.add(
                    f"{path}.env.{name}",
                    f"the gateway sets it, as pools.{pool.name} has devices; take one of the two "
                    "away",
                )
                return
