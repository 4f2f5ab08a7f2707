"""How much memory an engine will need, from its arguments and the header of its GGUF file.

The arithmetic, and what it does not know, is in `gguf/memory.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from trio_gateway.config.engine_args import CONTEXT_STEP, EngineArgs
from trio_gateway.config.schema import VariantConfig
from trio_gateway.config.server_options import (
    BATCH,
    CACHE_TYPE_K,
    CACHE_TYPE_V,
    CONTEXT,
    CONTEXT_PER_SLOT,
    CPU_EXPERT_LAYERS,
    CPU_EXPERTS,
    CPU_FFN_LAYERS,
    DRAFT,
    GPU_LAYERS,
    KV_OFFLOAD,
    MODEL,
    OVERRIDE_TENSOR,
    PARALLEL,
    PHYSICAL_BATCH,
    PROJECTOR,
    SWA_FULL,
    ServerOption,
)
from trio_gateway.gguf.header import GgufHeader, read_headers
from trio_gateway.gguf.memory import MemoryEstimate, Use, estimate_memory
from trio_gateway.gguf.shards import files_of_model

log = logging.getLogger(__name__)

# With these, part of the model is elsewhere, or there is a second model.
_UNKNOWN_SHARE = (CPU_EXPERTS, CPU_EXPERT_LAYERS, CPU_FFN_LAYERS, OVERRIDE_TENSOR, DRAFT)

_NUMBERS = (CONTEXT, PARALLEL, BATCH, PHYSICAL_BATCH)
_DEFAULT_SLOTS = 4  # llama-server's without --parallel


def estimate_variants(variants: Sequence[VariantConfig]) -> list[MemoryEstimate | None]:
    """An estimate for each variant, or None where there is nothing to base it on.

    Raises nothing: a file that is missing or broken gives None, and a line in the debug log.
    Blocks while the headers are read, each file once.
    """
    given = [variant.engine_args for variant in variants]
    paths = [_existing(v, args.value(MODEL)) for v, args in zip(variants, given, strict=True)]
    headers = read_headers(sorted({path for path in paths if path}))
    estimates: list[MemoryEstimate | None] = []
    for variant, args, path in zip(variants, given, paths, strict=True):
        header = headers.get(path or "")
        try:
            estimates.append(_estimate(variant, args, path, header) if path and header else None)
        except (OSError, ValueError, KeyError) as error:
            log.debug("variant %s: no estimate of its memory: %r", variant.name, error)
            estimates.append(None)
    return estimates


def _estimate(
    variant: VariantConfig, args: EngineArgs, path: str, header: GgufHeader
) -> MemoryEstimate | None:
    layers = header.number("block_count") or 0
    if _shared_with_the_cpu(args, layers) or any(_is_unreadable(args, o) for o in _NUMBERS):
        return None
    weights = sum(part.stat().st_size for part in files_of_model(Path(path)))
    if projector := args.value(PROJECTOR):
        weights += (variant.workdir / projector).stat().st_size
    slots = args.slots or 0
    # Without --ctx-size the engine takes what the model was trained for, or what is free: at
    # least what the variant promises. With --parallel it divides that among the slots.
    context = args.context
    if context is None and (per_slot := args.number(CONTEXT_PER_SLOT) or 0) > 0:
        context = per_slot * (slots or _DEFAULT_SLOTS)
    context = context or variant.context * max(slots, 1)
    context = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    use = Use(
        context=context,
        batch=args.physical_batch,
        windows=0 if args.is_on(SWA_FULL) else slots or _DEFAULT_SLOTS,
        cache_k=args.value(CACHE_TYPE_K) or "f16",
        cache_v=args.value(CACHE_TYPE_V) or "f16",
        makes_vectors=args.is_embedding,
    )
    return estimate_memory(header, weights, use)


def _shared_with_the_cpu(args: EngineArgs, layers: int) -> bool:
    """Whether only a part of it is in the memory of a GPU; how large a part is not known."""
    if args.has(*_UNKNOWN_SHARE) or args.switch(KV_OFFLOAD) is False:
        return True
    return 0 < (args.number(GPU_LAYERS) or 0) < layers


def _is_unreadable(args: EngineArgs, number: ServerOption) -> bool:
    return args.has(number) and args.number(number) is None


def _existing(variant: VariantConfig, path: str | None) -> str | None:
    full = variant.workdir / path if path else None
    return str(full) if full is not None and os.path.isfile(full) else None
