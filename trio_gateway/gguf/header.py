"""GgufHeader: what the header of a GGUF file says about its model, without its vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

import msgspec

from trio_gateway.gguf.metadata import BadGguf, Metadata, Value, read_metadata
from trio_gateway.gguf.tensors import TensorTotals

log = logging.getLogger(__name__)

_RANK = 4  # llama.cpp's number of this kind of pooling
_LONGEST_TEXT = 200  # characters of what describes the file; a licence may be a book
_LONGEST_LIST = 4096  # elements; lists of one per layer are shorter, those of the vocabulary longer

_TOKENS, _TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.chat_template"
_TOOLS_TEMPLATE = "tokenizer.chat_template.tool_use"
_SPLIT = "split.count"
_MIDDLE = ("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id")

Number = bool | int


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`values` are the architecture's own integers, without its name: `"block_count"`.

    `vocabulary`: tokens, 0 if the file names none. `general`: texts and integers that describe the
    file, `"size_label"`. `chat_template` None: it has none. `tools_template`: the one for chats
    with tools, if that is another. `fills_in`: it has tokens for a text in the middle. `tensors`:
    of this file; None: not known. `data_end`: bytes that the file has at least, if it is whole;
    None: not known. `split_count`: into how many files the model was split; None: it was not.
    """

    architecture: str
    vocabulary: int
    values: dict[str, Number | list[Number]]
    general: dict[str, int | str] = {}
    chat_template: str | None = None
    tools_template: str | None = None
    fills_in: bool = False
    tensors: TensorTotals | None = None
    data_end: int | None = None
    split_count: int | None = None

    @property
    def is_embedding(self) -> bool:
        """Whether the model makes vectors of texts and cannot go on with one."""
        return "pooling_type" in self.values or self.values.get("attention.causal") in (0, False)

    @property
    def is_reranker(self) -> bool:
        """Whether it ranks documents; its pooling says so."""
        return self.values.get("pooling_type") == _RANK

    def number(self, key: str) -> int | None:
        """The integer at this key; the largest, where the file has one for each layer."""
        value = self.values.get(key)
        if isinstance(value, list):
            return int(max(value)) if value else None
        return None if value is None else int(value)

    def per_layer(self, key: str, layers: int) -> list[int] | None:
        """The integer at this key for each layer, however the file has it; None if it has none."""
        value = self.values.get(key)
        if isinstance(value, list):
            return [int(v) for v in value] if len(value) >= layers else None
        return None if value is None else [int(value)] * layers


def read_headers(paths: Sequence[str]) -> dict[str, GgufHeader]:
    """The headers of the files that can be read. Blocks: some 20 ms a file."""
    found = {}
    for path in paths:
        try:
            found[path] = read_header(Path(path))
        except BadGguf as error:
            log.debug("%s %s", path, error)
    return found


def read_header(path: Path) -> GgufHeader:
    """Reads a file once, until it changes. Raises BadGguf: it is not there, or is not what it
    should be."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return _read(path)  # which says why not
    return _read_once(path, status.st_mtime_ns, status.st_size, status.st_ino)


# A reload asks for the same headers again, and for most of them more than once.
@lru_cache(maxsize=512)
def _read_once(path: Path, modified_ns: int, size: int, inode: int) -> GgufHeader:
    return _read(path)


def _read(path: Path) -> GgufHeader:
    metadata = read_metadata(path, _is_wanted, longest_list=_LONGEST_LIST, tensors=True)
    architecture = metadata.text("general.architecture")
    if not architecture:
        raise BadGguf("names no architecture")
    return GgufHeader(
        architecture=architecture,
        vocabulary=metadata.length(_TOKENS),
        values=_numbers(metadata, f"{architecture}."),
        general=_descriptions(metadata),
        chat_template=metadata.text(_TEMPLATE),
        tools_template=metadata.text(_TOOLS_TEMPLATE),
        fills_in=any(name in metadata for name in _MIDDLE),
        tensors=metadata.tensors,
        data_end=metadata.data_end,
        split_count=metadata.number(_SPLIT, 0) or None,
    )


def read_tensors(path: Path) -> TensorTotals | None:
    """Of a file that is not a model's first. Raises BadGguf."""
    return read_metadata(path, lambda _: False, tensors=True).tensors


def check_whole(path: Path, data_end: int | None) -> None:
    """Compare what the header says of the file's end with its size. `data_end` None: it says
    nothing, as its list of tensors ends early, or makes no sense.

    Raises:
        BadGguf: it is cut off, or gone.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadGguf(f"cannot be read: {error.strerror}") from None
    if data_end is None:
        raise BadGguf("has no list of tensors that can be read")
    if size < data_end:
        raise BadGguf(f"is cut off: of {data_end} bytes it has {size}")


def read_data_end(path: Path) -> int | None:
    """Of a file that is not a model's first. Raises BadGguf."""
    return read_metadata(path, lambda _: False, tensors=True).data_end


def _is_wanted(key: str) -> bool:
    if not key.startswith("tokenizer."):
        return True
    return key in (_TEMPLATE, _TOOLS_TEMPLATE) or key in _MIDDLE


def _numbers(metadata: Metadata, prefix: str) -> dict[str, Number | list[Number]]:
    found: dict[str, Number | list[Number]] = {}
    for key, value in metadata.values.items():
        if not key.startswith(prefix):
            continue
        if isinstance(value, int):
            found[key.removeprefix(prefix)] = value
        elif isinstance(value, tuple) and _are_integers(value):
            found[key.removeprefix(prefix)] = list(value)
    return found


def _are_integers(values: tuple[float, ...]) -> TypeGuard[tuple[int, ...]]:
    return all(isinstance(value, int) for value in values)


def _descriptions(metadata: Metadata) -> dict[str, int | str]:
    return {
        key.removeprefix("general."): value
        for key, value in metadata.values.items()
        if key.startswith("general.") and _is_short(value)
    }


def _is_short(value: Value) -> TypeGuard[int | str]:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT)
