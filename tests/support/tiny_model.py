"""A model for a real engine that reads a prompt in no time: few layers, random weights.

Its vocabulary and chat template are those of the packaged SmolLM2. What it says means nothing, but
it says the same whenever it has read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from trio_gateway.config.lua.presets import preset
from trio_gateway.gguf.metadata import read_metadata

WIDTH, LAYERS, HEADS, INNER = 192, 24, 3, 512
TRAINED_FOR = 8192
CONTROL_TOKENS = 17  # the first of the vocabulary
FIRST_UNUSED = 3  # of them: a chat has the others


def write_tiny_model(
    path: Path,
    template: str | None = None,
    layers: int = LAYERS,
    vocabulary: int | None = None,
) -> Path:
    """About 60 MB. It reads 300 tokens in a quarter of a second: so carrying them over pays.

    Args:
        template: the chat template, if it is to be another one.
        layers: with few of them, it is as quick as it can be with that vocabulary.
        vocabulary: only so many tokens, so that a text has more of them. It never ends an answer,
            says ASCII only, and can fill gaps.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(TRAINED_FOR)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    tokens = _add_tokenizer(writer, template, vocabulary)
    never = [p for p, token in enumerate(tokens) if p < CONTROL_TOKENS or not _is_ascii(token)]
    random = np.random.default_rng(7)

    def add(name: str, *shape: int) -> None:
        scale = shape[-1] ** -0.5
        weights = random.standard_normal(shape, dtype=np.float32) * scale
        if vocabulary is not None:
            _set_apart(name, weights, never)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    add("token_embd", len(tokens), WIDTH)
    add("output", len(tokens), WIDTH)
    add_norm("output_norm")
    for block in (f"blk.{i}" for i in range(layers)):
        add_norm(f"{block}.attn_norm")
        add_norm(f"{block}.ffn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}", WIDTH, WIDTH)
        add(f"{block}.ffn_gate", INNER, WIDTH)
        add(f"{block}.ffn_up", INNER, WIDTH)
        add(f"{block}.ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _is_ascii(token: str) -> bool:
    """A blank and the end of a line are written as Ġ and Ċ."""
    return token.replace("Ġ", " ").replace("Ċ", " ").isascii()


def _set_apart(name: str, weights: NDArray[np.float32], never: Sequence[int]) -> None:
    """The first dimension is the same all the way, and the tokens that it is `never` to say are far
    from there."""
    if name == "token_embd":
        weights[:, 0] = 2
    elif name.endswith(("attn_output", "ffn_down")):
        weights[0] = 0
    else:
        weights[:, 0] = 0
    if name == "output":
        weights[never, 0] = -2


def _add_tokenizer(
    writer: gguf.GGUFWriter, template: str | None, vocabulary: int | None = None
) -> list[str]:
    """The packaged model's. Its tokens are in the order of its merges."""
    found = read_metadata(Path(preset("models", "smollm2")))
    tokens = found.texts("tokenizer.ggml.tokens")[:vocabulary]
    left_out = len(found.texts("tokenizer.ggml.tokens")) - len(tokens)
    merges = found.texts("tokenizer.ggml.merges")
    kinds = [int(kind) for kind in found.numbers("tokenizer.ggml.token_type")]
    writer.add_tokenizer_model(found.text("tokenizer.ggml.model") or "")
    writer.add_tokenizer_pre(found.text("tokenizer.ggml.pre") or "")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds[: len(tokens)])
    writer.add_token_merges(merges[: len(merges) - left_out])
    writer.add_bos_token_id(found.number("tokenizer.ggml.bos_token_id", 0))
    writer.add_eos_token_id(found.number("tokenizer.ggml.eos_token_id", 0))
    writer.add_add_bos_token(False)
    if vocabulary is not None:
        for place, name in enumerate(("fim_pre", "fim_suf", "fim_mid"), FIRST_UNUSED):
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", place)
    writer.add_chat_template(template or found.text("tokenizer.chat_template") or "")
    return tokens
