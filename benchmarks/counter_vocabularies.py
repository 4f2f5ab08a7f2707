"""Copies of a GGUF file with another vocabulary: one that shows where a pre-tokenizer cuts.

Merges that were learned within words say nothing about the cuts between them. These are learned
from text as a whole, so tokens reach over blanks, digits, signs and line ends, and each cut that
is missing or too much changes the count.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

_NORMAL, _CONTROL = 1, 3
_SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>")
_LEARNED = 20_000
_PIECE = 200  # characters; whole texts would take long to learn from


def write_with_pre_tokenizer(source: Path, target: Path, pre: str, texts: Iterable[str]) -> None:
    """The source with `tokenizer.ggml.pre` and a vocabulary of the same size learned from texts."""
    reader = GGUFReader(source)
    size = len(reader.fields["tokenizer.ggml.tokens"].data)
    tokens, merges = _learn(texts)
    tokens = [*_SPECIALS, *(t for t in tokens if t not in _SPECIALS)]
    types = [_CONTROL] * len(_SPECIALS) + [_NORMAL] * (size - len(_SPECIALS))
    tokens += [f"[unused {index}]" for index in range(size - len(tokens))]
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "tokenizer.")) or name == "general.architecture":
            continue
        items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], items)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _learn(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_LEARNED,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    pieces = (text[i : i + _PIECE] for text in texts for i in range(0, len(text), _PIECE))
    tokenizer.train_from_iterator(pieces, trainer)
    model = msgspec.json.decode(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return tokens, merges
