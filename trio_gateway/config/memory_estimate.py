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

from trio_gateway.config.engine_args import (
    CONTEXT,
    CONTEXT_STEP,
    GPU_LAYERS,
    MODEL,
    PARALLEL,
    PROJECTOR,
    files_of_model,
    has_option,
    option,
)
from trio_gateway.config.schema import VariantConfig
from trio_gateway.gguf.header import GgufHeader, read_headers

log = logging.getLogger(__name__)

# Further options of llama-server, in all their spellings.
_BATCH = ("-ub", "--ubatch-size")
_CACHE_K = ("-ctk", "--cache-type-k")
_CACHE_V = ("-ctv", "--cache-type-v")
_WHOLE_WINDOW = ("--swa-full",)
# With these, part of the model is elsewhere, or there is a second model.
_UNKNOWN_SHARE = (
    "-cmoe", "--cpu-moe", "-ncmoe", "--n-cpu-moe", "-ot", "--override-tensor",
    "-nkvo", "--no-kv-offload", "-md", "--model-draft", "--spec-draft-model",
)  # fmt: skip

_DEFAULT_BATCH = 512  # tokens, llama-server's --ubatch-size
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
    models = [_option(v, MODEL) for v in variants]
    paths = [_existing(v, m) if m else None for v, m in zip(variants, models, strict=True)]
    headers = read_headers(sorted({path for path in paths if path}))
    estimates: list[MemoryEstimate | None] = []
    for variant, path in zip(variants, paths, strict=True):
        header = headers.get(path or "")
        try:
            estimates.append(_estimate(variant, path, header) if path and header else None)
        except (OSError, ValueError, KeyError) as error:
            log.debug("variant %s: no estimate of its memory: %r", variant.name, error)
            estimates.append(None)
    return estimates


def _estimate(variant: VariantConfig, path: str, header: GgufHeader) -> MemoryEstimate | None:
    layers = header.number("block_count") or 0
    if _shared_with_the_cpu(variant, layers):
        return None
    weights = sum(part.stat().st_size for part in files_of_model(Path(path)))
    if projector := _option(variant, PROJECTOR):
        weights += (variant.workdir / projector).stat().st_size
    slots = int(_option(variant, PARALLEL) or 0)
    context = int(_option(variant, CONTEXT) or 0)
    # Without --ctx-size the engine takes what the model was trained for, or what is free: at
    # least what the variant promises. With --parallel it divides that among the slots.
    context = max(context, 0) or variant.context * max(slots, 1)
    context = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    batch = min(int(_option(variant, _BATCH) or _DEFAULT_BATCH), context)
    windows = 0 if _has(variant, _WHOLE_WINDOW) else slots if slots > 0 else _DEFAULT_SLOTS
    width = header.vocabulary + (header.number("embedding_length") or 0)
    return MemoryEstimate(
        weights_bytes=weights,
        kv_bytes=_kv_bytes(
            header,
            _tokens_per_layer(header, layers, context, windows, batch),
            _CACHE_TYPES[_option(variant, _CACHE_K) or "f16"],
            _CACHE_TYPES[_option(variant, _CACHE_V) or "f16"],
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


def _shared_with_the_cpu(variant: VariantConfig, layers: int) -> bool:
    """Whether only a part of it is in the memory of a GPU; how large a part is not known."""
    if _has(variant, _UNKNOWN_SHARE):
        return True
    on_gpu = _option(variant, GPU_LAYERS) or ""
    return on_gpu.isdecimal() and 0 < int(on_gpu) < layers


def _existing(variant: VariantConfig, path: str) -> str | None:
    full = variant.workdir / path
    return str(full) if full.is_file() else None


def _has(variant: VariantConfig, names: tuple[str, ...]) -> bool:
    return has_option(variant.args, names)


def _option(variant: VariantConfig, names: tuple[str, ...]) -> str | None:
    return option(variant.args, names)
