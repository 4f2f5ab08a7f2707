"""What the candidates' headers say: which are models, and what belongs to them."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from trio_gateway.finding.belonging import (
    assigned,
    best,
    drafted,
    left_draft,
    left_projector,
)
from trio_gateway.finding.candidates import Candidate
from trio_gateway.finding.headers import (
    NotTaken,
    Read,
    is_draft,
    is_projector,
    read_candidate,
    why_no_model,
)
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.names import choices
from trio_gateway.gguf.chat_template import knows_thinking, knows_tools
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.gguf.quantization import quantization

MOST = 500  # models; a configuration may leave some 50,000 values, and each takes about 60


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


def models_of(candidates: Iterable[Candidate]) -> tuple[list[Model], list[Left]]:
    """Sorted by name. Blocks: some 20 ms for each file that is new. Raises nothing."""
    left = list[Left]()
    models, projectors, drafts = list[Read](), list[Read](), list[Read]()
    for candidate in candidates:
        try:
            read = read_candidate(candidate)
        except NotTaken as error:
            left.append(error.left)
            continue
        if (why := why_no_model(read)) is not None:
            left.append(why)
        elif is_projector(read):
            projectors.append(read)
        elif is_draft(read):
            drafts.append(read)
        else:
            models.append(read)
    left += (Left(read.path, Why.TOO_MANY, f"more than {MOST}") for read in models[MOST:])
    models = models[:MOST]
    owned = assigned(models, projectors)
    drafted_by = {drafted(draft, models): draft for draft in drafts}
    left += (left_projector(read, models) for read in projectors if read.path not in owned)
    left += (left_draft(draft, drafted(draft, models)) for draft in drafts)
    names = dict(_named(models))
    found = [
        _model(read, names[read.path], best(read, projectors, owned), drafted_by.get(read.path))
        for read in models
    ]
    used = {model.projector for model in found}
    left += (Left(path, Why.SPARE) for path in owned if path not in used)
    return sorted(found, key=lambda model: model.name), left


def _kind(read: Read) -> Kind:
    """Some older files of models that rank say nothing of it, but by their names."""
    names = f"{os.path.basename(read.path)} {read.header.general.get('name', '')}".lower()
    if read.header.is_reranker or (read.header.is_embedding and "rerank" in names):
        return Kind.RERANK
    return Kind.EMBEDDING if read.header.is_embedding else Kind.CHAT


def _model(read: Read, name: str, projector: Read | None, draft: Read | None) -> Model:
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


def _named(models: Sequence[Read]) -> Iterator[tuple[str, str]]:
    """A name for each path. The oldest file has the first choice, so that a new one never takes the
    name of another."""
    taken = set[str]()
    for read in sorted(models, key=lambda read: (read.modified_ns, read.path)):
        kind = quantization(read.header, os.path.basename(read.path))
        names = choices(read.path, kind, read.candidate.name)
        name = next(name for name in names if name not in taken)
        taken.add(name)
        yield read.path, name
