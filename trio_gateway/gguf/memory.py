"""How much memory a model needs, from the header of its GGUF file. Pure.

A guess until the engine has run once, made of three parts:

- weights: the sizes of the files;
- the KV cache: for each layer, tokens x (key + value length) x KV heads x bytes of the cache type;
- buffers: what one batch needs while it is computed. Only the largest part, the scores of the
  whole vocabulary for a batch: with llama.cpp that is nearly all of it for models of any size. A
  model that only makes vectors scores no vocabulary, but each token of a batch against all others.

It is an upper bound where a model keeps less than the whole context in a layer and the header
does not say which layers (a sliding window, a recurrent layer). It does not know what a driver
keeps for each process (CUDA: some hundred MiB) and what the engine keeps of earlier prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.gguf.header import GgufHeader
from trio_gateway.gguf.offload import Offload, is_on_gpu

MOST_LAYERS = 10_000
_SCORE_BYTES = 4
# What a process has besides weights and cache: 58 to 75 MiB measured with SmolLM2 and the embedded
# engine at 2,048 to 8,192 tokens, on the CPU, before and after a prompt of 1,800 tokens.
_LEAST_BUFFER_BYTES = 64 * 2**20

# Bytes of a block, elements of a block; from gguf.GGML_QUANT_SIZES, of what llama-server takes.
CACHE_TYPES = {
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


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is run. `context`: tokens of all slots; `batch`: tokens that are computed at
    once; `windows`: for how many slots a layer with a sliding window keeps one, 0: the whole
    context; `cache_k`, `cache_v`: one of CACHE_TYPES; `makes_vectors`: it answers no chats;
    `offload`: what of it is in the memory that is asked about."""

    context: int
    batch: int = 512
    windows: int = 1
    cache_k: str = "f16"
    cache_v: str = "f16"
    makes_vectors: bool = False
    offload: Offload = Offload()


def estimate_memory(header: GgufHeader, weights_bytes: int, use: Use) -> MemoryEstimate:
    """Raises KeyError: no such cache type; ValueError: the header's numbers make no sense."""
    layers = header.number("block_count") or 0
    if not 0 <= layers <= MOST_LAYERS:
        raise ValueError(f"{layers} layers")
    batch = min(use.batch, use.context)
    width = header.vocabulary + (header.number("embedding_length") or 0)
    if use.makes_vectors and header.values.get("attention.causal") in (0, False):
        width = batch * (header.number("attention.head_count") or 1)
    tokens = _tokens_per_layer(header, layers, use.context, use.windows, batch)
    is_there = [
        use.offload.has_kv and is_on_gpu(layer, layers, use.offload) for layer in range(layers)
    ]
    return MemoryEstimate(
        weights_bytes=weights_bytes,
        kv_bytes=_kv_bytes(
            header,
            [count if there else 0 for count, there in zip(tokens, is_there, strict=True)],
            CACHE_TYPES[use.cache_k],
            CACHE_TYPES[use.cache_v],
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
