"""Models of several architectures that a real engine loads in no time: four layers, random weights.

Each token is one printable character, so nothing else has to be installed. What they say means
nothing, but it depends on all that they have read, and is the same whenever that is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

WIDTH, LAYERS = 128, 4
HEAD, KV_HEADS = 32, 2
INNER, STATE, KERNEL = 2 * WIDTH, 32, 4  # of layers with a state
SSM_HEADS = INNER // STATE
WINDOW = 256  # tokens, of a sliding window
TRAINED_FOR = 8192

DENSE, WINDOWED, PARALLEL = ("llama", "qwen3"), ("gemma3",), ("falcon-h1",)
HYBRID, RECURRENT = ("lfm2", "granitehybrid", "qwen35"), ("mamba", "mamba2")
ARCHITECTURES = (*DENSE, *WINDOWED, *PARALLEL, *HYBRID, *RECURRENT)

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Space and newline as byte-level vocabularies write them.
_CHARACTERS = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
_SPECIAL = ["<|im_start|>", "<|im_end|>"]
TOKENS = [*_CHARACTERS, "ĠĠ", *_SPECIAL]  # the one merge that there must be


class Weights(NamedTuple):
    """A tensor: its name without `.weight`, its shape as numpy has it, and what it is filled with:
    random numbers of that gain, or this value with a spread around it."""

    name: str
    shape: tuple[int, ...]
    gain: float = 1.0
    value: float | None = None
    spread: float = 0.0
    suffix: str = ".weight"


def write_model(arch: str, path: Path) -> Path:
    """2 to 4 MB. Nothing is different the next time.

    In single precision: with less, what is read in other batches is rounded otherwise, and one
    answer of a hundred is another for it.
    """
    writer = gguf.GGUFWriter(path, arch)
    _add_vocabulary(writer)
    _add_sizes(writer, arch)
    random = np.random.default_rng(ARCHITECTURES.index(arch) + 1)
    for weights in _tensors(arch):
        if weights.value is not None:
            noise = random.uniform(-weights.spread, weights.spread, weights.shape)
            data = (weights.value + noise).astype(np.float32)
        else:
            data = random.standard_normal(weights.shape, dtype=np.float32)
            data *= weights.gain * weights.shape[-1] ** -0.5
        if weights.name == "output":
            data[-len(_SPECIAL) - 1 :] = 0  # so that no answer ends early
        writer.add_tensor(weights.name + weights.suffix, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    kinds = [normal] * (len(TOKENS) - len(_SPECIAL)) + [control] * len(_SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(len(TOKENS) - 2)
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)


def _has_state_only(arch: str, layer: int) -> bool:
    return arch in RECURRENT or (arch in HYBRID and layer % 4 != 3)


def _add_sizes(writer: gguf.GGUFWriter, arch: str) -> None:
    pure = arch in RECURRENT
    heads: Any = 0 if pure else KV_HEADS
    if arch in ("lfm2", "granitehybrid"):  # the zeros say which layers have a state only
        heads = [0 if _has_state_only(arch, i) else KV_HEADS for i in range(LAYERS)]
    writer.add_context_length(TRAINED_FOR)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(0 if pure else 2 * WIDTH)
    writer.add_vocab_size(len(TOKENS))
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_head_count(0 if pure else WIDTH // HEAD)
    writer.add_head_count_kv(heads)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(1e5)
    match arch:
        case "gemma3":
            writer.add_sliding_window(WINDOW)
        case "lfm2":
            writer.add_shortconv_l_cache(KERNEL - 1)
        case "qwen35":
            writer.add_rope_dimension_sections([6, 5, 5, 0])
            writer.add_full_attention_interval(4)
    if arch in ("qwen35", "granitehybrid", *PARALLEL, *RECURRENT):
        writer.add_ssm_conv_kernel(KERNEL)
        writer.add_ssm_inner_size(INNER)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_group_count(2 if arch == "qwen35" else 1)
        writer.add_ssm_time_step_rank(WIDTH // 16 if arch == "mamba" else SSM_HEADS)


def _tensors(arch: str) -> Iterator[Weights]:
    yield Weights("token_embd", (len(TOKENS), WIDTH))
    yield Weights("output", (len(TOKENS), WIDTH))
    yield Weights("token_embd_norm" if arch == "lfm2" else "output_norm", (WIDTH,), value=1)
    for layer in range(LAYERS):
        for weights in _layer(arch, layer):
            yield weights._replace(name=f"blk.{layer}.{weights.name}")


def _layer(arch: str, layer: int) -> Iterator[Weights]:
    yield Weights("attn_norm", (WIDTH,), value=1)
    if not _has_state_only(arch, layer):
        yield from _attention(arch)
    elif arch == "lfm2":
        yield Weights("shortconv.conv", (WIDTH, KERNEL - 1))
        yield Weights("shortconv.in_proj", (3 * WIDTH, WIDTH))
        yield Weights("shortconv.out_proj", (WIDTH, WIDTH))
    elif arch == "qwen35":
        yield from _delta_net()
    elif arch == "mamba":
        yield from _mamba()
    if arch in ("mamba2", *PARALLEL) or (arch == "granitehybrid" and _has_state_only(arch, layer)):
        yield from _mamba2()
    if arch not in RECURRENT:
        yield from _feed_forward(arch)


def _attention(arch: str) -> Iterator[Weights]:
    normed = arch in ("qwen3", "gemma3", "lfm2", "qwen35")
    # Without norms, larger numbers: attention would be a mean of all that was read.
    gain = 1.0 if normed else 2.0
    yield Weights("attn_q", (WIDTH * (2 if arch == "qwen35" else 1), WIDTH), gain)
    yield Weights("attn_k", (KV_HEADS * HEAD, WIDTH), gain)
    yield Weights("attn_v", (KV_HEADS * HEAD, WIDTH))
    # Where one layer of four has attention, it is to be heard all the same.
    yield Weights("attn_output", (WIDTH, WIDTH), 4.0 if arch in HYBRID else 1.0)
    if normed:
        yield Weights("attn_q_norm", (HEAD,), value=2)
        yield Weights("attn_k_norm", (HEAD,), value=2)


def _feed_forward(arch: str) -> Iterator[Weights]:
    if arch == "gemma3":
        yield Weights("post_attention_norm", (WIDTH,), value=1)
        yield Weights("post_ffw_norm", (WIDTH,), value=1)
    match arch:
        case "qwen35":
            yield Weights("post_attention_norm", (WIDTH,), value=1)
        case "falcon-h1":
            yield Weights("ffn_norm", (WIDTH,), value=1, suffix="")
        case _:
            yield Weights("ffn_norm", (WIDTH,), value=1)
    yield Weights("ffn_gate", (2 * WIDTH, WIDTH))
    yield Weights("ffn_up", (2 * WIDTH, WIDTH))
    yield Weights("ffn_down", (WIDTH, 2 * WIDTH))


def _state_space(projected: int, mixed: int, *steps: int) -> Iterator[Weights]:
    """What both Mambas have. Small steps and slow decays make a long memory."""
    yield Weights("ssm_in", (projected, WIDTH))
    yield Weights("ssm_conv1d", (mixed, KERNEL))
    yield Weights("ssm_conv1d", (mixed,), value=0, suffix=".bias")
    yield Weights("ssm_dt", (steps[0],), value=-3, suffix=".bias")
    yield Weights("ssm_a", steps, value=-0.05, spread=0.04, suffix="")
    yield Weights("ssm_out", (WIDTH, INNER))


def _mamba() -> Iterator[Weights]:
    rank = WIDTH // 16
    yield from _state_space(2 * INNER, INNER, INNER, STATE)
    yield Weights("ssm_x", (rank + 2 * STATE, INNER))
    yield Weights("ssm_dt", (INNER, rank))
    yield Weights("ssm_d", (INNER,), value=1, suffix="")


def _mamba2() -> Iterator[Weights]:
    mixed = INNER + 2 * STATE
    yield from _state_space(INNER + mixed + SSM_HEADS, mixed, SSM_HEADS, 1)
    yield Weights("ssm_d", (SSM_HEADS, 1), value=1, suffix="")
    yield Weights("ssm_norm", (1, INNER), value=1)


def _delta_net() -> Iterator[Weights]:
    mixed = INNER + 4 * STATE  # two heads each of keys and queries
    yield Weights("attn_qkv", (mixed, WIDTH))
    yield Weights("attn_gate", (INNER, WIDTH))
    yield Weights("ssm_conv1d", (mixed, KERNEL))
    yield Weights("ssm_dt", (SSM_HEADS,), value=-5, suffix=".bias")
    yield Weights("ssm_a", (SSM_HEADS,), value=-1, spread=0.9, suffix="")
    yield Weights("ssm_beta", (SSM_HEADS, WIDTH))
    yield Weights("ssm_alpha", (SSM_HEADS, WIDTH))
    yield Weights("ssm_norm", (STATE,), value=1)
    yield Weights("ssm_out", (WIDTH, INNER))
