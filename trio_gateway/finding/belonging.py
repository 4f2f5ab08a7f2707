"""Which files belong to a model: projectors, which let it see or hear, and draft models. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence

from trio_gateway.finding.headers import DRAFT, PROJECTOR, Read
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.names import typable
from trio_gateway.gguf.quantization import quantization

# Of several projectors the one that is as good as any, and smaller than F32.
_BEST_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")


def assigned(models: Sequence[Read], projectors: Sequence[Read]) -> dict[str, list[str]]:
    """For each projector that has any, the paths of its models."""
    found = {p.path: [m.path for m in _seen_by(p, models)] for p in projectors}
    return {path: owners for path, owners in found.items() if owners}


def _seen_by(projector: Read, models: Sequence[Read]) -> list[Read]:
    """Of the models near it those that are called as it is; or all, if they are one model.
    None whose vectors have another length: an engine would refuse to start."""
    near = [m for m in _near(projector, models) if not m.header.is_embedding]
    fitting = [m for m in near if _fits(projector, m)]
    own = typable(projector.base.replace(PROJECTOR, " "))
    by_name = [m for m in fitting if own and (own == m.base or _begins(own, m.base))]
    if by_name:
        return by_name
    return fitting if len({m.base for m in near}) == 1 else []


def _near(projector: Read, models: Sequence[Read]) -> list[Read]:
    """Those in its folder; if there are none, those in folders in that, one for a quantization."""
    beside = [m for m in models if m.folder == projector.folder]
    return beside or [m for m in models if os.path.dirname(m.folder) == projector.folder]


def _begins(one: str, other: str) -> bool:
    """Whether one is the beginning of the other, up to a whole word."""
    short, long = sorted((one, other), key=len)
    return len(short) > _SHORT_WORD and long.startswith(f"{short}-")


_SHORT_WORD = 5  # characters: `model` says nothing


def _fits(projector: Read, model: Read) -> bool:
    given = [
        number
        for key in ("vision.projection_dim", "audio.projection_dim", "projection_dim")
        if (number := projector.header.number(key)) is not None
    ]
    length = model.header.number("embedding_length")
    return not given or length is None or length in given


def best(model: Read, projectors: Sequence[Read], owned: dict[str, list[str]]) -> Read | None:
    own = [p for p in projectors if model.path in owned.get(p.path, [])]

    def rank(projector: Read) -> tuple[int, int, str]:
        kind = quantization(projector.header, os.path.basename(projector.path))
        known = _BEST_PROJECTORS.index(kind) if kind in _BEST_PROJECTORS else len(_BEST_PROJECTORS)
        return known, projector.size_bytes, projector.path

    return min(own, key=rank, default=None)


def drafted(draft: Read, models: Sequence[Read]) -> str | None:
    """The model that a draft model is for: of the same vocabulary, and called alike or near it."""
    same = [m for m in models if m.header.vocabulary == draft.header.vocabulary]
    own = typable(DRAFT.sub("-", draft.base))
    by_name = [m for m in same if own and (own == m.base or _begins(own, m.base))]
    near = [m for m in same if m.folder == draft.folder]
    found = by_name or near
    return max(found, key=lambda m: m.size_bytes).path if found else None


def left_projector(projector: Read, models: Sequence[Read]) -> Left:
    near = _near(projector, models)
    if not near:
        return Left(projector.path, Why.PROJECTOR)
    if not any(_fits(projector, m) for m in near):
        return Left(projector.path, Why.PROJECTOR, "it fits none in its folder")
    return Left(projector.path, Why.PROJECTOR, "its name does not say which of those in its folder")


def left_draft(draft: Read, model: str | None) -> Left:
    if model is None:
        return Left(draft.path, Why.DRAFT, "of no model that was found")
    return Left(draft.path, Why.DRAFT, f"of {os.path.basename(model)}")
