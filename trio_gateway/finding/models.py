"""What the candidates' headers say: which are models, and what belongs to them."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.finding.candidates import Candidate
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.names import base_of, choices, typable
from trio_gateway.gguf.chat_template import knows_thinking, knows_tools
from trio_gateway.gguf.header import GgufHeader, check_whole, read_data_end, read_header
from trio_gateway.gguf.memory import MOST_LAYERS
from trio_gateway.gguf.metadata import BadGguf
from trio_gateway.gguf.quantization import quantization

MOST = 500  # models; a configuration may leave some 50,000 values, and each takes about 60

_REMEMBERED = 2_000  # headers: a reload reads only what is new
_DRAFT = re.compile(r"(^|[-_. ])draft([-_. ]|$)", re.IGNORECASE)
_DRAFTS = frozenset({"eagle3", "dflash"})
_PROJECTOR = "mmproj"
_UNREADABLE = "cannot be read: "  # as BadGguf says it
# Of other programs, in the same format; llama-server does not know them.
_OTHERS = frozenset(
    {
        "aura", "cosmos", "flux", "gptoss", "hidream", "hyvid", "lumina2", "ltxv", "mllama", "pig",
        "qwen25vl", "qwen_image", "sd1", "sd3", "sdxl", "wan", "wavtokenizer-dec", "whisper",
        "z_image", "t5encoder",
    }
)  # fmt: skip
# Of several projectors the one that is as good as any, and smaller than F32.
_BEST_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")


class Kind(enum.Enum):
    CHAT = "chat"
    EMBEDDING = "embeddings"
    RERANK = "rerank"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes`: of all its files, without the projector. `trained`: tokens of its context.
    `projector`, `draft`: the paths of files that belong to it."""

    name: str
    files: tuple[str, ...]
    kind: Kind
    header: GgufHeader
    quantization: str
    size_bytes: int
    trained: int
    owner: str = ""
    projector: str | None = None
    projector_bytes: int = 0
    draft: str | None = None

    @property
    def path(self) -> str:
        return self.files[0]

    @property
    def has_tools(self) -> bool:
        template = self.header.tools_template or self.header.chat_template
        return template is not None and knows_tools(template)

    @property
    def thinks(self) -> bool:
        return self.header.chat_template is not None and knows_thinking(self.header.chat_template)


class _Read(msgspec.Struct, frozen=True, kw_only=True):
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
        return os.path.dirname(self.path)


def models_of(candidates: Iterable[Candidate]) -> tuple[list[Model], list[Left]]:
    """Sorted by name. Blocks: some 20 ms for each file that is new. Raises nothing."""
    left = list[Left]()
    models, projectors, drafts = list[_Read](), list[_Read](), list[_Read]()
    for candidate in candidates:
        try:
            read = _read(candidate)
        except _NotTaken as error:
            left.append(error.left)
            continue
        if (why := _no_model(read)) is not None:
            left.append(why)
        elif _is_projector(read):
            projectors.append(read)
        elif _is_draft(read):
            drafts.append(read)
        else:
            models.append(read)
    left += (Left(read.path, Why.TOO_MANY, f"more than {MOST}") for read in models[MOST:])
    models = models[:MOST]
    owned = _assigned(models, projectors)
    drafted = {_drafted(draft, models): draft for draft in drafts}
    left += (_left_projector(read, models) for read in projectors if read.path not in owned)
    left += (_left_draft(draft, _drafted(draft, models)) for draft in drafts)
    names = dict(_named(models))
    found = [
        _model(read, names[read.path], _best(read, projectors, owned), drafted.get(read.path))
        for read in models
    ]
    used = {model.projector for model in found}
    left += (Left(path, Why.SPARE) for path in owned if path not in used)
    return sorted(found, key=lambda model: model.name), left


class _NotTaken(Exception):
    def __init__(self, left: Left) -> None:
        super().__init__(left.reason)
        self.left = left


# -- one file ------------------------------------------------------------------------------------


def _read(candidate: Candidate) -> _Read:
    """Raises _NotTaken."""
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
        raise _NotTaken(Left(path, Why.INCOMPLETE, have))
    header: GgufHeader | None = None
    for file, status in zip(candidate.files, stats, strict=True):
        if not status.st_size:
            raise _NotTaken(Left(file, Why.BROKEN, "is empty"))
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        fault = _end(file, *stamp) if file != path else None
        if file == path:
            read = _header(file, *stamp)
            header, fault = (None, read) if isinstance(read, str) else (read, None)
        if fault is not None:
            why = Why.UNREADABLE if fault.startswith(_UNREADABLE) else Why.BROKEN
            raise _NotTaken(Left(file, why, fault.removeprefix(_UNREADABLE)))
    assert header is not None
    return _Read(
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


def _no_model(read: _Read) -> Left | None:
    header, path = read.header, read.path
    kind = header.general.get("type")
    if kind == "adapter":
        return Left(path, Why.ADAPTER)
    if header.architecture in _OTHERS or kind in ("imatrix", "controlvector"):
        what = kind if kind in ("imatrix", "controlvector") else header.architecture
        return Left(path, Why.UNKNOWN, str(what))
    if _is_projector(read):
        return None
    if header.tensors is not None and not header.tensors.parameters:
        return Left(path, Why.VOCABULARY)
    split = header.split_count
    if split is not None and split != len(read.candidate.files):
        return Left(
            path, Why.INCOMPLETE, f"one of {split} files, by a name that says nothing of it"
        )
    layers = header.number("block_count") or 0
    if layers > MOST_LAYERS:
        return Left(path, Why.BROKEN, f"claims {layers} layers")
    if layers <= 0 or (header.number("context_length") or 0) <= 0:
        return Left(path, Why.UNKNOWN, f"architecture {header.architecture}")
    return None


def _is_projector(read: _Read) -> bool:
    return (
        read.header.architecture == "clip"
        or read.header.general.get("type") == _PROJECTOR
        or _PROJECTOR in os.path.basename(read.path).lower()
    )


def _is_draft(read: _Read) -> bool:
    name = os.path.basename(read.path)
    return read.header.architecture in _DRAFTS or _DRAFT.search(name) is not None


def _kind(read: _Read) -> Kind:
    """Some older files of models that rank say nothing of it, but by their names."""
    names = f"{os.path.basename(read.path)} {read.header.general.get('name', '')}".lower()
    if read.header.is_reranker or (read.header.is_embedding and "rerank" in names):
        return Kind.RERANK
    return Kind.EMBEDDING if read.header.is_embedding else Kind.CHAT


def _model(read: _Read, name: str, projector: _Read | None, draft: _Read | None) -> Model:
    given = read.candidate.projector
    return Model(
        name=name,
        files=read.candidate.files,
        kind=_kind(read),
        header=read.header,
        quantization=quantization(read.header, os.path.basename(read.path)),
        size_bytes=read.size_bytes,
        trained=read.header.number("context_length") or 0,
        owner=read.candidate.owner,
        projector=given or (projector.path if projector is not None else None),
        projector_bytes=_size(given) if given else (projector.size_bytes if projector else 0),
        draft=draft.path if draft is not None else None,
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


# -- what belongs together -----------------------------------------------------------------------


def _named(models: Sequence[_Read]) -> Iterator[tuple[str, str]]:
    """A name for each path. The oldest file has the first choice, so that a new one never takes the
    name of another."""
    taken = set[str]()
    for read in sorted(models, key=lambda read: (read.modified_ns, read.path)):
        kind = quantization(read.header, os.path.basename(read.path))
        names = choices(read.path, kind, read.candidate.name)
        name = next(name for name in names if name not in taken)
        taken.add(name)
        yield read.path, name


def _assigned(models: Sequence[_Read], projectors: Sequence[_Read]) -> dict[str, list[str]]:
    """For each projector that has any, the paths of its models."""
    found = {p.path: [m.path for m in _seen_by(p, models)] for p in projectors}
    return {path: owners for path, owners in found.items() if owners}


def _seen_by(projector: _Read, models: Sequence[_Read]) -> list[_Read]:
    """Of the models in its folder those that are called as it is; or all, if they are one model.
    None whose vectors have another length: an engine would refuse to start."""
    near = [m for m in models if m.folder == projector.folder and not m.header.is_embedding]
    fitting = [m for m in near if _fits(projector, m)]
    own = typable(projector.base.replace(_PROJECTOR, " "))
    by_name = [m for m in fitting if own and (own == m.base or _begins(own, m.base))]
    if by_name:
        return by_name
    return fitting if len({m.base for m in near}) == 1 else []


def _begins(one: str, other: str) -> bool:
    """Whether one is the beginning of the other, up to a whole word."""
    short, long = sorted((one, other), key=len)
    return len(short) > _SHORT_WORD and long.startswith(f"{short}-")


_SHORT_WORD = 5  # characters: `model` says nothing


def _fits(projector: _Read, model: _Read) -> bool:
    given = [
        number
        for key in ("vision.projection_dim", "audio.projection_dim", "projection_dim")
        if (number := projector.header.number(key)) is not None
    ]
    length = model.header.number("embedding_length")
    return not given or length is None or length in given


def _best(model: _Read, projectors: Sequence[_Read], owned: dict[str, list[str]]) -> _Read | None:
    own = [p for p in projectors if model.path in owned.get(p.path, [])]

    def rank(projector: _Read) -> tuple[int, int, str]:
        kind = quantization(projector.header, os.path.basename(projector.path))
        known = _BEST_PROJECTORS.index(kind) if kind in _BEST_PROJECTORS else len(_BEST_PROJECTORS)
        return known, projector.size_bytes, projector.path

    return min(own, key=rank, default=None)


def _drafted(draft: _Read, models: Sequence[_Read]) -> str | None:
    """The model that a draft model is for: of the same vocabulary, and called alike or near it."""
    same = [m for m in models if m.header.vocabulary == draft.header.vocabulary]
    own = typable(_DRAFT.sub("-", draft.base))
    by_name = [m for m in same if own and (own == m.base or _begins(own, m.base))]
    near = [m for m in same if m.folder == draft.folder]
    found = by_name or near
    return max(found, key=lambda m: m.size_bytes).path if found else None


def _left_projector(projector: _Read, models: Sequence[_Read]) -> Left:
    near = [m for m in models if m.folder == projector.folder]
    if not near:
        return Left(projector.path, Why.PROJECTOR)
    if not any(_fits(projector, m) for m in near):
        return Left(projector.path, Why.PROJECTOR, "it fits none in its folder")
    return Left(projector.path, Why.PROJECTOR, "its name does not say which of those in its folder")


def _left_draft(draft: _Read, model: str | None) -> Left:
    if model is None:
        return Left(draft.path, Why.DRAFT, "of no model that was found")
    return Left(draft.path, Why.DRAFT, f"of {os.path.basename(model)}")
