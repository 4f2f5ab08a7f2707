"""Which part of a model lies in the memory of a GPU, if only a part of it does.

As llama.cpp decides it: with `-ngl N` the output and the last N - 1 layers are there, each with its
part of the KV cache; what turns tokens into vectors is not; experts and single tensors can be kept
off by their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trio_gateway.gguf.metadata import BadGguf, read_metadata

_LAYER = re.compile(r"blk\.(\d+)\.")
_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(?:up|down|gate|gate_up)_(?:ch|)exps")
_INPUT, _OUTPUT = "token_embd.weight", "output.weight"


class Offload(msgspec.Struct, frozen=True, kw_only=True):
    """`gpu_layers` None: all. `cpu_experts`: of so many first layers the experts are not there.
    `overrides`: patterns of names, and whether such tensors are there; the first that fits counts.
    `has_kv`: the KV cache of its layers is there as well."""

    gpu_layers: int | None = None
    cpu_experts: int = 0
    overrides: tuple[tuple[re.Pattern[str], bool], ...] = ()
    has_kv: bool = True


def is_on_gpu(layer: int, layers: int, offload: Offload) -> bool:
    """`layer` as many as there are: the output."""
    if offload.gpu_layers is None:
        return True
    return layer >= max(layers + 1 - offload.gpu_layers, 0)


def weights_on_gpu(sizes: Sequence[tuple[str, int]], layers: int, offload: Offload) -> int:
    """Bytes of these tensors."""
    names = {name for name, _ in sizes}
    total = 0
    for name, size in sizes:
        if _is_there(name, layers, offload, shares_input=_OUTPUT not in names):
            total += size
    return total


def _is_there(name: str, layers: int, offload: Offload, *, shares_input: bool) -> bool:
    for pattern, is_there in offload.overrides:
        if pattern.search(name):
            return is_there
    if (match := _EXPERTS.match(name)) and int(match[1]) < offload.cpu_experts:
        return False
    if name == _INPUT and not shares_input:
        return False
    match = _LAYER.match(name)
    return is_on_gpu(layers if match is None else int(match[1]), layers, offload)


def tensor_sizes(files: Sequence[Path]) -> list[tuple[str, int]]:
    """The names and bytes of all tensors.

    Raises:
        BadGguf: a file cannot be read, or has tensors of a type that is not known.
    """
    found: list[tuple[str, int]] = []

    def take(name: str, size: int | None) -> None:
        if size is None:
            raise BadGguf(f"has a tensor of an unknown type, {name}")
        found.append((name, size))

    for file in files:
        if read_metadata(file, lambda _: False, tensors=True, each=take).tensors is None:
            raise BadGguf("has no list of tensors that can be read")
    return found
