"""A planned model as a configuration has it, whatever it is written in. Pure."""

from __future__ import annotations

import msgspec

from trio_gateway.finding.models import Kind, Model
from trio_gateway.finding.plan import Planned, Variant

_POOLINGS_OF_TOKENS = (None, 0)  # each token keeps a vector of its own
_KINDS = {Kind.EMBEDDING: "--embeddings", Kind.RERANK: "--reranking"}


class EntryVariant(msgspec.Struct, frozen=True):
    """`args`: what only this variant is given, besides its file and its context."""

    context: int
    args: tuple[str, ...]
    needs_bytes: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """`pool` None: the default."""

    name: str
    path: str
    description: str
    variants: tuple[EntryVariant, ...]
    pool: str | None = None


def common_args(*, is_gpu: bool) -> tuple[str, ...]:
    """What all engines are given: one request at a time, which gets all of the context; and all
    layers on the GPU, as far as there is one."""
    return "--parallel", "1", *(("--gpu-layers", "999") if is_gpu else ())


def entry_of(planned: Planned) -> Entry:
    model = planned.model
    return Entry(
        name=model.name,
        path=model.path,
        description=description(model),
        variants=tuple(
            EntryVariant(v.context, _args(model, v), v.needs_bytes) for v in planned.variants
        ),
        pool="secondary" if planned.is_helper else None,
    )


def description(model: Model) -> str:
    """`Qwen3 8B, Q4_K_M, 4.7 GiB: tools, thinking`."""
    said = model.header.general.get("name")
    words = " ".join("".join(c if c.isprintable() else " " for c in str(said or "")).split())
    facts = [words or model.header.architecture, model.quantization]
    return ", ".join(filter(None, facts)) + (
        f": {', '.join(able)}" if (able := abilities(model)) else ""
    )


def abilities(model: Model) -> list[str]:
    if model.kind is not Kind.CHAT:
        return [model.kind.value]
    found = {"tools": model.has_tools, "thinking": model.thinks, "images": bool(model.projector)}
    return [word for word, has in found.items() if has]


def _args(model: Model, variant: Variant) -> tuple[str, ...]:
    args = list[str]()
    if model.kind in _KINDS:
        args.append(_KINDS[model.kind])
        pooling = model.header.number("pooling_type")
        if model.kind is Kind.EMBEDDING and pooling in _POOLINGS_OF_TOKENS:
            args += ("--pooling", "mean")
    elif model.projector is not None:
        args += ("--mmproj", model.projector)
    if variant.batch is not None:
        args += ("--batch-size", str(variant.batch), "--ubatch-size", str(variant.batch))
    if variant.cache is not None:
        args += ("--cache-type-k", variant.cache, "--cache-type-v", variant.cache)
    return tuple(args)
