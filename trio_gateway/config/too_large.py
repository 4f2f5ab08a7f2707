"""Leaves out variants of discovered models that are larger than their pool.

Of a model that was written by hand that is an error; but a new file in a folder makes no
configuration an invalid one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.config.memory_estimate import estimate_variants
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.sizes import format_over

_Paths = Sequence[tuple[str, ...]]


def without_too_large(
    models: Sequence[ModelConfig],
    paths: _Paths,
    pools: Mapping[str, PoolConfig],
    notes: list[str],
) -> tuple[tuple[ModelConfig, ...], list[tuple[str, ...]]]:
    """The models that have a variant left, and the paths of their variants in the file, with a note
    for what was left out. Reads the headers of discovered models in pools with `memory`."""
    kept_models, kept_paths = list[ModelConfig](), list[tuple[str, ...]]()
    for model, where in zip(models, paths, strict=True):
        pool = pools.get(model.pool)
        limit = pool.memory_bytes if pool is not None and model.discovered else None
        if limit is not None:
            model, where = _fitting(model, where, limit, notes)
        if model.variants:
            kept_models.append(model)
            kept_paths.append(where)
    return tuple(kept_models), kept_paths


def _fitting(
    model: ModelConfig, where: tuple[str, ...], limit: int, notes: list[str]
) -> tuple[ModelConfig, tuple[str, ...]]:
    kept = []
    estimates = estimate_variants(model.variants)
    for variant, path, estimate in zip(model.variants, where, estimates, strict=True):
        needed = variant.memory_bytes or (estimate.total_bytes if estimate is not None else 0)
        if needed <= limit:
            kept.append((variant, path))
        else:
            needs, has = format_over(needed, limit)
            notes.append(
                f'discover: "{model.name}" with {variant.context} tokens: left out, as it needs '
                f'{needs}, and its pool "{model.pool}" has {has}'
            )
    variants = tuple(variant for variant, _ in kept)
    return msgspec.structs.replace(model, variants=variants), tuple(path for _, path in kept)
