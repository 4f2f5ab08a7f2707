"""Fingerprint: all that must be the same for a saved KV cache to be of any use.

The context's size is not in it: a cache fits any context that holds its tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from trio_gateway.config.schema import VariantConfig
from trio_gateway.config.server_options import MODEL, canonical
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.finding.engines import EMBEDDED_COMMAND
from trio_gateway.gguf.shards import files_of_model

# A GGUF begins with its header; this much of it has the architecture and a part of the vocabulary.
HEADER_BYTES = 2**20

BUILD = "engine build"
LAYOUT = "slot layout"
_GROUPS: dict[str, tuple[str, ...]] = {
    "cache types": ("-ctk", "-ctv", "--cache-type", "-fa", "--flash-attn", "--swa-full"),
    "rope arguments": ("--rope", "--yarn"),
    "LoRA arguments": ("--lora", "--control-vector", "--override-kv"),
    "projector": ("-mm", "--mmproj"),
}  # fmt: skip
_VARIABLES = ("CACHE_TYPE", "FLASH_ATTN", "SWA_FULL", "ROPE", "YARN", "LORA", "MMPROJ")


class Fingerprint(msgspec.Struct, frozen=True):
    """The parts by name, each as comparable text."""

    parts: dict[str, str]

    def encode(self) -> str:
        return msgspec.json.encode(self.parts, order="deterministic").decode()

    def differs_in(self, encoded: str) -> list[str]:
        """Names of the parts in which another one, as `encode` gave it, is different."""
        try:
            other = msgspec.json.decode(encoded, type=dict[str, str])
        except msgspec.DecodeError:
            return ["everything"]
        names = [*self.parts, *(name for name in other if name not in self.parts)]
        return [name for name in names if self.parts.get(name) != other.get(name)]


def fingerprint_of(
    variant: VariantConfig, facts: EngineFacts, shared_tokens: int | None = None
) -> Fingerprint | None:
    """Of a ready engine of this variant; None if its model's file cannot be read. Blocks: reads a
    part of the file. `shared_tokens`: what its slots share, None if each has its own."""
    path = variant.engine_args.value(MODEL) or facts.model_path
    if path is None:
        return None
    try:
        parts = {"model file": _model_file(variant.workdir / path)}
    except OSError:
        return None
    for name, options in _GROUPS.items():
        parts[name] = " ".join(_given(variant.args, options))
    variables = {**variant.inherited_options, **variant.env}
    parts["variables"] = " ".join(
        f"{k}={v}" for k, v in sorted(variables.items()) if any(word in k for word in _VARIABLES)
    )
    # One cache reads what another one cache saved, however many slots are in it; of a split one
    # only what is split alike.
    is_split = (facts.slots or 1) > 1 and shared_tokens is None
    parts[LAYOUT] = f"{facts.slots} caches" if is_split else "one cache"
    parts[BUILD] = f"{facts.build or 'unknown'} {_binary(variant.binary)}"
    return Fingerprint(parts)


def _model_file(path: Path) -> str:
    with path.open("rb") as file:
        header = hashlib.blake2b(file.read(HEADER_BYTES), digest_size=16).hexdigest()
    # The parts by the names given: in some caches they are links to names that say nothing.
    return " ".join([str(path.resolve()), header, *map(_stat, files_of_model(path))])


def _stat(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def _given(args: Sequence[str], prefixes: tuple[str, ...]) -> Iterator[str]:
    """The options that begin like this, each with its values (one has two)."""
    for index, arg in enumerate(args):
        name = canonical(arg.partition("=")[0])
        if not any(name == p or (p.startswith("--") and name.startswith(p)) for p in prefixes):
            continue
        yield arg
        if "=" not in arg:
            yield from itertools.takewhile(_is_value, args[index + 1 : index + 3])


def _is_value(arg: str) -> bool:
    return not arg.startswith("-") or arg[1:2].isdigit()


def _binary(binary: str) -> str:
    """The program itself: not every build says which one it is."""
    try:
        program = _stat(Path(binary))
    except OSError:
        program = "unknown"
    if Path(binary).name == EMBEDDED_COMMAND:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            program = f"xllamacpp {importlib.metadata.version('xllamacpp')}"
    return program
