"""What a candidate's files say: whether they are whole, and whether they are a model."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.finding.candidates import Candidate
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.names import base_of, repository_in, typable
from trio_gateway.gguf.header import GgufHeader, check_whole, read_data_end, read_header
from trio_gateway.gguf.memory import MOST_LAYERS
from trio_gateway.gguf.metadata import BadGguf

_REMEMBERED = 2_000  # headers: a reload reads only what is new
DRAFT = re.compile(r"(^|[-_. ])draft([-_. ]|$)", re.IGNORECASE)
_DRAFTS = frozenset({"eagle3", "dflash"})
PROJECTOR = "mmproj"
_UNREADABLE = "cannot be read: "  # as BadGguf says it
# Of other programs, in the same format; llama-server does not know them.
_OTHERS = frozenset(
    {
        "aura", "cosmos", "flux", "gptoss", "hidream", "hyvid", "lumina2", "ltxv", "mllama", "pig",
        "qwen25vl", "qwen_image", "sd1", "sd3", "sdxl", "wan", "wavtokenizer-dec", "whisper",
        "z_image", "t5encoder",
    }
)  # fmt: skip


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate whose files are all there. `modified_ns`: of its first file."""

    candidate: Candidate
    header: GgufHeader
    size_bytes: int
    modified_ns: int

    @property
    def path(self) -> str:
        return self.candidate.path

    @property
    def base(self) -> str:
        """What its files are called, whatever they are quantized to."""
        return typable(base_of(Path(self.path).stem))

    @property
    def folder(self) -> str:
        """The folder; in llama.cpp's cache, which has none, with what its repository is called."""
        folder, name = os.path.split(self.path)
        repository = repository_in(name)
        return os.path.join(folder, repository) if repository else folder


class NotTaken(Exception):
    def __init__(self, left: Left) -> None:
        super().__init__(left.reason)
        self.left = left


def read_candidate(candidate: Candidate) -> Read:
    """Raises NotTaken."""
    path = candidate.path
    stats = list[os.stat_result]()
    missing = list[str]()
    for file in candidate.files:
        try:
            stats.append(os.stat(file))
        except OSError:
            missing.append(os.path.basename(file))
    if missing:
        have = f"{len(stats)} of {len(candidate.files)} files are there, {missing[0]} is missing"
        raise NotTaken(Left(path, Why.INCOMPLETE, have))
    header: GgufHeader | None = None
    for file, status in zip(candidate.files, stats, strict=True):
        if not status.st_size:
            raise NotTaken(Left(file, Why.BROKEN, "is empty"))
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        fault = _end(file, *stamp) if file != path else None
        if file == path:
            read = _header(file, *stamp)
            header, fault = (None, read) if isinstance(read, str) else (read, None)
        if fault is not None:
            why = Why.UNREADABLE if fault.startswith(_UNREADABLE) else Why.BROKEN
            raise NotTaken(Left(file, why, fault.removeprefix(_UNREADABLE)))
    assert header is not None
    return Read(
        candidate=candidate,
        header=header,
        size_bytes=sum(status.st_size for status in stats),
        modified_ns=stats[0].st_mtime_ns,
    )


@lru_cache(maxsize=_REMEMBERED)
def _header(path: str, modified_ns: int, size: int, inode: int) -> GgufHeader | str:
    """Or why there is none."""
    try:
        header = read_header(Path(path))
        check_whole(Path(path), header.data_end)
    except BadGguf as error:
        return str(error)
    return header


@lru_cache(maxsize=_REMEMBERED)
def _end(path: str, modified_ns: int, size: int, inode: int) -> str | None:
    """Why a later file of a model is of no use; None: it is."""
    try:
        check_whole(Path(path), read_data_end(Path(path)))
    except BadGguf as error:
        return str(error)
    return None


def why_no_model(read: Read) -> Left | None:
    header, path = read.header, read.path
    kind = header.general.get("type")
    if kind == "adapter":
        return Left(path, Why.ADAPTER)
    if header.architecture in _OTHERS or kind in ("imatrix", "controlvector"):
        what = kind if kind in ("imatrix", "controlvector") else header.architecture
        return Left(path, Why.UNKNOWN, str(what))
    if is_projector(read):
        return None
    if header.tensors is not None and not header.tensors.parameters:
        return Left(path, Why.VOCABULARY)
    split = header.split_count or 1
    if split > 1 and split != len(read.candidate.files):
        return Left(path, Why.INCOMPLETE, f"one of {split} files, but its name does not say so")
    layers = header.number("block_count") or 0
    if layers > MOST_LAYERS:
        return Left(path, Why.BROKEN, f"claims {layers} layers")
    if layers <= 0 or (header.number("context_length") or 0) <= 0:
        return Left(path, Why.UNKNOWN, f"architecture {header.architecture}")
    return None


def is_projector(read: Read) -> bool:
    return (
        read.header.architecture == "clip"
        or read.header.general.get("type") == PROJECTOR
        or PROJECTOR in os.path.basename(read.path).lower()
    )


def is_draft(read: Read) -> bool:
    name = os.path.basename(read.path)
    return read.header.architecture in _DRAFTS or DRAFT.search(name) is not None
