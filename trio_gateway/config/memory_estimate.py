"""How much memory an engine will need, from its arguments and the header of its GGUF file.

A guess until the engine has run once, made of three parts:

- weights: the sizes of the files;
- the KV cache: for each layer, tokens x (key + value length) x KV heads x bytes of the cache type;
- buffers: what one batch needs while it is computed. Only the largest part, the scores of the
  whole vocabulary for a batch: with llama.cpp that is nearly all of it for models of any size.

It is an upper bound where a model keeps less than the whole context in a layer and the header
does not say which layers (a sliding window, a recurrent layer). It does not know what a driver
keeps for each process (CUDA: some hundred MiB) and what the engine keeps of earlier prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trio_gateway.config.engine_args import CONTEXT_STEP, EngineArgs, files_of_model
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

log = logging.getLogger(__name__)

# With these, part of the model is elsewhere, or there is a second model.
_UNKNOWN_SHARE = (CPU_EXPERTS, CPU_EXPERT_LAYERS, CPU_FFN_LAYERS, OVERRIDE_TENSOR, DRAFT)

_NUMBERS = (CONTEXT, PARALLEL, BATCH, PHYSICAL_BATCH)
_DEFAULT_SLOTS = 4  # llama-server's without --parallel
_SCORE_BYTES = 4
# What a process has besides weights and cache: 58 to 75 MiB measured with SmolLM2 and the embedded
# engine at 2,048 to 8,192 tokens, on the CPU, before and after a prompt of 1,800 tokens.
_LEAST_BUFFER_BYTES = 64 * 2**20

# Bytes of a block, elements of a block; from gguf.GGML_QUANT_SIZES, of what llama-server takes.
_CACHE_TYPES = {
    "f32": (4, 1), "f16": (2, 1), "bf16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32),
    "q4_1": (20, 32), "iq4_nl": (18, 32), "q5_0": (22, 32), "q5_1": (24, 32),
}  # fmt: skip

# Every n-th layer sees the whole context, for architectures whose older files do not say it
# (llama.cpp's `set_swa_pattern`).
_WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    weights_bytes: int
    kv_bytes: int
    buffer_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.buffer_bytes


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
    batch = min(args.physical_batch, context)
    windows = 0 if args.is_on(SWA_FULL) else slots or _DEFAULT_SLOTS
    width = header.vocabulary + (header.number("embedding_length") or 0)
    return MemoryEstimate(
        weights_bytes=weights,
        kv_bytes=_kv_bytes(
            header,
            _tokens_per_layer(header, layers, context, windows, batch),
            _CACHE_TYPES[args.value(CACHE_TYPE_K) or "f16"],
            _CACHE_TYPES[args.value(CACHE_TYPE_V) or "f16"],
        ),
        buffer_bytes=max(batch * width * _SCORE_BYTES, _LEAST_BUFFER_BYTES),
    )


def _kv_bytes(
    header: GgufHeader, tokens: Sequence[int], k_type: tuple[int, int], v_type: tuple[int, int]
) -> int:
    layers = len(tokens)
    heads = header.per_layer("attention.head_count", layers)
    if header.number("attention.causal") == 0 or not layers or heads is None:
        return 0  # an embedding model that reads its whole text at once; a recurrent model
    kv_heads = header.per_layer("attention.head_count_kv", layers) or heads
    length = (header.number("embedding_length") or 0) // max(*heads, 1)
    k_length = header.number("attention.key_length") or length
    v_length = header.number("attention.value_length") or length
    total = 0
    for count, at_a_time in zip(tokens, kv_heads, strict=False):
        for width, (block_bytes, block) in ((k_length, k_type), (v_length, v_type)):
            total += count * at_a_time * width * block_bytes // block
    return total


def _tokens_per_layer(
    header: GgufHeader, layers: int, context: int, windows: int, batch: int
) -> list[int]:
    """Tokens that each layer keeps: all, or a window of them for each of `windows` slots."""
    window = header.number("attention.sliding_window") or 0
    pattern = header.values.get("attention.sliding_window_pattern")
    kept = min(context, windows * (window + batch))
    if not window or not windows:
        return [context] * layers
    if isinstance(pattern, list):
        return [kept if i < len(pattern) and pattern[i] else context for i in range(layers)]
    period = int(pattern or _WINDOW_PATTERNS.get(header.architecture, 1))
    return [context if (i + 1) % period == 0 else kept for i in range(layers)]


def _shared_with_the_cpu(args: EngineArgs, layers: int) -> bool:
    """Whether only a part of it is in the memory of a GPU; how large a part is not known."""
    if args.has(*_UNKNOWN_SHARE) or args.switch(KV_OFFLOAD) is False:
        return True
    return 0 < (args.number(GPU_LAYERS) or 0) < layers


def _is_unreadable(args: EngineArgs, number: ServerOption) -> bool:
    return args.has(number) and args.number(number) is None


def _existing(variant: VariantConfig, path: str | None) -> str | None:
    full = variant.workdir / path if path else None
    return str(full) if full is not None and full.is_file() else None
