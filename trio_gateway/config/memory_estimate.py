"""How much memory an engine will need, from its arguments and the header of its GGUF file.

The arithmetic, and what it does not know, is in `gguf/memory.py`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
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
from trio_gateway.gguf.memory import MOST_LAYERS, MemoryEstimate, Use, estimate_memory
from trio_gateway.gguf.metadata import BadGguf
from trio_gateway.gguf.offload import Offload, tensor_sizes, weights_on_gpu
from trio_gateway.gguf.shards import files_of_model

log = logging.getLogger(__name__)

_PARTIAL = (CPU_EXPERTS, CPU_EXPERT_LAYERS, OVERRIDE_TENSOR)
_NUMBERS = (CONTEXT, PARALLEL, BATCH, PHYSICAL_BATCH)
_DEFAULT_SLOTS = 4  # llama-server's without --parallel


def estimate_variants(variants: Sequence[VariantConfig]) -> list[MemoryEstimate | None]:
    """An estimate for each variant, or None where there is nothing to base it on.

    Raises nothing: a file that is missing or broken gives None, and a line in the debug log.
    Blocks while the headers are read, each file once.
    """
    given = [variant.engine_args for variant in variants]
    paths = [_existing(v, args.value(MODEL)) for v, args in zip(variants, given, strict=True)]
    drafts = [_existing(v, args.value(DRAFT)) for v, args in zip(variants, given, strict=True)]
    headers = read_headers(sorted({path for path in (*paths, *drafts) if path}))
    estimates: list[MemoryEstimate | None] = []
    for variant, args, path, draft in zip(variants, given, paths, drafts, strict=True):
        header = headers.get(path or "")
        try:
            found = _estimate(variant, args, path, header) if path and header else None
            if found is not None and args.has(DRAFT):
                found = _with_draft(found, variant, args, draft, headers)
            estimates.append(found)
        except (OSError, ValueError, KeyError, BadGguf) as error:
            log.debug("variant %s: no estimate of its memory: %r", variant.name, error)
            estimates.append(None)
    return estimates


def _estimate(
    variant: VariantConfig, args: EngineArgs, path: str, header: GgufHeader
) -> MemoryEstimate | None:
    layers = header.number("block_count") or 0
    if args.has(CPU_FFN_LAYERS) or any(_is_unreadable(args, option) for option in _NUMBERS):
        return None
    offload, files = _offload(args, layers), files_of_model(Path(path))
    weights = sum(part.stat().st_size for part in files)
    if offload.gpu_layers is not None or args.has(*_PARTIAL):
        weights = weights_on_gpu(tensor_sizes(files), layers, offload)
    if projector := args.value(PROJECTOR):
        weights += (variant.workdir / projector).stat().st_size
    return estimate_memory(header, weights, _use(variant, args, offload))


def _with_draft(
    found: MemoryEstimate,
    variant: VariantConfig,
    args: EngineArgs,
    path: str | None,
    headers: Mapping[str, GgufHeader],
) -> MemoryEstimate | None:
    """With the model that drafts, all of which is taken to be next to the other."""
    header = headers.get(path or "")
    if path is None or header is None:
        return None
    weights = sum(part.stat().st_size for part in files_of_model(Path(path)))
    use = Use(context=_context(variant, args), batch=args.physical_batch)
    draft = estimate_memory(header, weights, use)
    return MemoryEstimate(
        weights_bytes=found.weights_bytes + draft.weights_bytes,
        kv_bytes=found.kv_bytes + draft.kv_bytes,
        buffer_bytes=found.buffer_bytes + draft.buffer_bytes,
    )


def _use(variant: VariantConfig, args: EngineArgs, offload: Offload) -> Use:
    return Use(
        context=_context(variant, args),
        batch=args.physical_batch,
        windows=0 if args.is_on(SWA_FULL) else args.slots or _DEFAULT_SLOTS,
        cache_k=args.value(CACHE_TYPE_K) or "f16",
        cache_v=args.value(CACHE_TYPE_V) or "f16",
        makes_vectors=args.is_embedding,
        offload=offload,
    )


def _context(variant: VariantConfig, args: EngineArgs) -> int:
    """Tokens of all slots. Without --ctx-size the engine takes what the model was trained for, or
    what is free: at least what the variant promises. With --parallel it divides that among the
    slots."""
    slots, context = args.slots or 0, args.context
    if context is None and (per_slot := args.number(CONTEXT_PER_SLOT) or 0) > 0:
        context = per_slot * (slots or _DEFAULT_SLOTS)
    context = context or variant.context * max(slots, 1)
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP


def _offload(args: EngineArgs, layers: int) -> Offload:
    """What of the model is in the memory of a GPU. Without one, or with `-ngl 0`, all of it is in
    the same memory. Raises ValueError: it cannot be read off the arguments."""
    given = args.number(GPU_LAYERS) or 0
    overrides = []
    for part in ",".join(args.values(OVERRIDE_TENSOR)).split(","):
        pattern, _, where = part.rpartition("=")
        if pattern:
            overrides.append((_compiled(pattern), not where.upper().startswith("CPU")))
    cpu_experts = args.number(CPU_EXPERT_LAYERS) or 0
    if args.has(CPU_EXPERT_LAYERS) and cpu_experts <= 0:
        raise ValueError("--n-cpu-moe is no number")
    return Offload(
        gpu_layers=given if 0 < given < layers else None,
        cpu_experts=MOST_LAYERS if args.is_on(CPU_EXPERTS) else cpu_experts,
        overrides=tuple(overrides),
        has_kv=args.switch(KV_OFFLOAD) is not False,
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--override-tensor {pattern}: {error}") from None


def _is_unreadable(args: EngineArgs, number: ServerOption) -> bool:
    return args.has(number) and args.number(number) is None


def _existing(variant: VariantConfig, path: str | None) -> str | None:
    full = variant.workdir / path if path else None
    return str(full) if full is not None and os.path.isfile(full) else None
