"""Small GGUF files for tests: a header, and no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
from tokenizers.pre_tokenizers import ByteLevel

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BYTES = sorted(ByteLevel.alphabet())


def write_bpe(
    folder: Path,
    *,
    pre: str = "gpt-2",
    merges: Sequence[str] = (),
    specials: Sequence[str] = (),
    extra: Sequence[tuple[str, int]] = (),
    without: str = "",
    name: str = "m",
    template: str | None = None,
    tool_template: str | None = None,
    bos: bool | None = None,
    eos: bool | None = None,
) -> Path:
    """A vocabulary of single bytes, of what the merges make of them, and of special tokens.

    `extra`: tokens with their type; `without`: bytes that have no token; `bos`, `eos`: whether the
    file says that they are added. BOS and EOS are the first special token.
    """
    joined = [merge.replace(" ", "") for merge in merges]
    tokens = [c for c in BYTES if c not in without] + list(dict.fromkeys(joined))
    types = [NORMAL] * len(tokens) + [CONTROL] * len(specials) + [kind for _, kind in extra]
    first_special = len(tokens)
    tokens += [*specials, *(token for token, _ in extra)]
    writer = _writer(folder, name, "gpt2", tokens, types)
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges(list(merges))
    if specials:
        writer.add_bos_token_id(first_special)
        writer.add_eos_token_id(first_special)
    if tool_template is not None:
        writer.add_string("tokenizer.chat_template.tool_use", tool_template)
    if bos is not None:
        writer.add_add_bos_token(bos)
    if eos is not None:
        writer.add_add_eos_token(eos)
    return _finish(writer, folder, template)


def write_spm(folder: Path, scores: dict[str, float], *, add_blank: bool = False) -> Path:
    """A SentencePiece vocabulary: the 256 bytes, and these tokens. A BOS is added."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *scores]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(scores)]
    writer = _writer(folder, "m", "llama", tokens, types)
    writer.add_token_scores([0.0] * 259 + list(scores.values()))
    writer.add_add_space_prefix(add_blank)
    return _finish(writer, folder, None)


def _writer(
    folder: Path, name: str, model: str, tokens: Sequence[str], types: Sequence[int]
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_name(name)
    writer.add_tokenizer_model(model)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    return writer


def _finish(writer: gguf.GGUFWriter, folder: Path, template: str | None) -> Path:
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder / "m.gguf"
