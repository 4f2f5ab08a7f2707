"""Names that clients can type, made of the names of files. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import PurePath

from trio_gateway.gguf.quantization import IN_NAMES

LONGEST = 80  # characters

_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_CACHED = re.compile(r"(?P<repo>[^_]+_.+-GGUF)_(?P<file>.+)", re.IGNORECASE)  # llama.cpp's cache
_REPO = re.compile(r"models--(?:.+?--)?(.+)")  # Hugging Face's
_ENDS = re.compile(r"([-_. ]+(gguf|imat|imatrix|ud|i1|fp16|bf16|f16))+$", re.IGNORECASE)
_GENERIC = frozenset({"", "model", "ggml-model", "ggml", "gguf", "weights", "main", "default"})
_OTHER = re.compile(r"[^a-z0-9._:+/-]+")
_RUNS = re.compile(r"-{2,}|\.{2,}|/{2,}")


def typable(text: str) -> str:
    """Lower case, of letters, digits and `._:+/-`; empty if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    joined = _RUNS.sub(lambda run: run[0][0], _OTHER.sub("-", plain))
    return joined[:LONGEST].strip("-._:+/")


def base_of(stem: str) -> str:
    """The stem of a file's name without how it is quantized: the same for all files of a model."""
    stem = _SHARD.sub("", stem.strip("-_. "))
    if (cached := _CACHED.fullmatch(stem)) is not None:
        stem = cached["file"]
    return _ENDS.sub("", _without_quantization(stem)).strip("-_. ")


def repository_in(name: str) -> str:
    """What a file's name in llama.cpp's cache begins with; empty: it is called otherwise."""
    cached = _CACHED.fullmatch(name)
    return cached["repo"] if cached is not None else ""


def _without_quantization(stem: str) -> str:
    found = [*IN_NAMES.finditer(stem)]
    return stem[: found[-1].start()] if found and found[-1].end() == len(stem) else stem


def choices(path: str, quantization: str, given: str = "") -> Iterator[str]:
    """Names for the model in this file, the best first, without end. `given`: what a program that
    has it calls it."""
    pure = PurePath(path)
    folder = _folder(pure)
    base = typable(given) or _base(pure)
    yield base
    kind = typable(quantization)
    if kind and not given:
        yield f"{base}-{kind}"[-LONGEST:]
    if folder and not base.startswith(folder):
        yield f"{folder}-{base}"[-LONGEST:].strip("-._")
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _base(path: PurePath) -> str:
    stem = path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name
    base = typable(base_of(stem))
    if base in _GENERIC:
        return _folder(path) or typable(stem) or "model"
    return base


def _folder(path: PurePath) -> str:
    """What the folder says: a repository's name, in Hugging Face's cache."""
    for parent in path.parents:
        if (repo := _REPO.fullmatch(parent.name)) is not None:
            return typable(base_of(repo[1]))
    return typable(base_of(path.parent.name))
