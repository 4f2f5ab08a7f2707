"""Decides how the models that were found are started: contexts that fit the memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.models import Kind, Model
from trio_gateway.gguf.memory import Use, estimate_memory

STEP = 256  # tokens: llama.cpp rounds a context up to it
SMALLEST = 2_048  # tokens: less is of no use for a chat

_RUNGS = (8_192, 32_768, 131_072, 524_288, 2_097_152)
_FINE = tuple(sorted(k << n for k in (2, 3) for n in range(10, 21)))  # 2048, 3072, 4096, 6144 …
_MOST = 10 << 20  # tokens: no file that claims more is right
_UNKNOWN_MEMORY = 32_768  # tokens: as much as is tried where nobody knows what fits
_LONGEST_INPUT = 4_096  # tokens of a text that becomes a vector: all of it is computed at once
_BATCH = 512
_SMALL_CACHE = "q8_0"
_TINY_BYTES = 1 << 30
_TINY_SHARE = 4  # a helper is that many times smaller than the largest model
_HELPERS_SHARE = 5  # all helpers at a time, if they take no more than a fifth of the memory


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """`cache`: the type of both halves of the KV cache, if it is not the engine's own."""

    context: int
    needs_bytes: int
    batch: int | None = None
    cache: str | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """`variants`: the smallest context first."""

    model: Model
    variants: tuple[Variant, ...]
    is_helper: bool = False

    @property
    def needs_bytes(self) -> int:
        return max(variant.needs_bytes for variant in self.variants)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`primary_bytes`, `secondary_bytes`: of the two pools; None: not known. `helpers_at_a_time`:
    engines of the second."""

    models: tuple[Planned, ...]
    left: tuple[Left, ...]
    primary_bytes: int | None = None
    secondary_bytes: int | None = None
    helpers_at_a_time: int = 1

    @property
    def helpers(self) -> tuple[Planned, ...]:
        return tuple(planned for planned in self.models if planned.is_helper)


def plan(
    models: Sequence[Model], memory_bytes: int | None, *, may_shrink_cache: bool = True
) -> Plan:
    """`memory_bytes`: what all engines may use together; None: nobody knows. `may_shrink_cache`:
    whether the engine can keep its cache in fewer bytes."""
    largest = max((m.size_bytes for m in models if m.kind is Kind.CHAT), default=0)
    helpers, others, left = list[Planned](), list[Planned](), list[Left]()
    for model in models:
        if not _is_helper(model, largest):
            continue
        found = planned(model, memory_bytes, is_helper=True, may_shrink_cache=may_shrink_cache)
        helpers.append(found) if isinstance(found, Planned) else left.append(found)
    needs = [helper.needs_bytes for helper in helpers]
    together = 1
    if memory_bytes is not None and sum(needs) * _HELPERS_SHARE <= memory_bytes:
        together = max(len(helpers), 1)
    secondary = sum(needs) if together > 1 else max(needs, default=0)
    primary = None if memory_bytes is None else memory_bytes - secondary
    for model in models:
        if _is_helper(model, largest):
            continue
        found = planned(model, primary, may_shrink_cache=may_shrink_cache)
        others.append(found) if isinstance(found, Planned) else left.append(found)
    if not others:
        primary = memory_bytes
    return Plan(
        models=tuple(sorted((*others, *helpers), key=lambda p: (p.is_helper, p.model.name))),
        left=tuple(left),
        primary_bytes=primary,
        secondary_bytes=None if memory_bytes is None or not helpers else secondary,
        helpers_at_a_time=together,
    )


def planned(
    model: Model,
    memory_bytes: int | None,
    *,
    is_helper: bool = False,
    may_shrink_cache: bool = True,
) -> Planned | Left:
    """With contexts that fit; or what is to be said of it."""
    if model.kind is Kind.CHAT:
        small_cache = _SMALL_CACHE if may_shrink_cache else None
        variants = _chat_variants(model, memory_bytes, small_cache)
    else:
        variants = _vector_variants(model, memory_bytes)
    if variants:
        return Planned(model=model, variants=tuple(variants), is_helper=is_helper)
    least = _needs(model, min(SMALLEST, _trained(model)))
    more = f"needs {size_text(least)}, and there are {size_text(memory_bytes or 0)}"
    return Left(model.path, Why.NO_MEMORY, more)


def size_text(size_bytes: int) -> str:
    """`371 MiB`, `4.7 GiB`."""
    if size_bytes < 2**30:
        return f"{-(-size_bytes // 2**20)} MiB"
    return f"{size_bytes / 2**30:.1f} GiB"


def _is_helper(model: Model, largest: int) -> bool:
    if model.kind is not Kind.CHAT:
        return True
    return model.size_bytes < _TINY_BYTES and model.size_bytes * _TINY_SHARE <= largest


def _chat_variants(model: Model, memory: int | None, small_cache: str | None) -> list[Variant]:
    trained = _trained(model)
    wanted = trained if memory is not None else min(trained, _UNKNOWN_MEMORY)
    top = _largest(model, wanted, memory, None)
    found = [Variant(context=c, needs_bytes=_needs(model, c)) for c in _ladder(top)] if top else []
    if top < wanted and small_cache is not None:
        longer = _largest(model, wanted, memory, small_cache)
        if longer * 2 >= top * 3 and longer > top:
            needs = _needs(model, longer, small_cache)
            found.append(Variant(context=longer, needs_bytes=needs, cache=small_cache))
    return found


def _vector_variants(model: Model, memory: int | None) -> list[Variant]:
    """One: each text is computed at once, unless a token sees only those before it."""
    is_causal = model.header.values.get("attention.causal") not in (0, False)
    top = min(_trained(model), _LONGEST_INPUT)
    for context in sorted({top, *(size for size in _FINE if size < top)}, reverse=True):
        batch = None if is_causal and model.header.number("pooling_type") in (3, 4) else context
        needs = _needs(model, context, batch=batch)
        if memory is None or needs <= memory:
            return [Variant(context=context, needs_bytes=needs, batch=batch)]
    return []


def _ladder(top: int) -> list[int]:
    """Contexts up to this one; each is at least twice the one before."""
    rungs = [rung for rung in _RUNGS if rung * 2 <= top]
    if not rungs and top >= 2 * SMALLEST:
        rungs = [SMALLEST]
    return [*rungs, top]


def _largest(model: Model, wanted: int, memory: int | None, cache: str | None) -> int:
    """The largest context that fits; 0: none."""
    sizes = {wanted, *(size for size in _FINE if size < wanted)}
    for context in sorted(sizes, reverse=True):
        if memory is None or _needs(model, context, cache) <= memory:
            return context
    return 0


def _needs(model: Model, context: int, cache: str | None = None, batch: int | None = None) -> int:
    use = Use(
        context=-(-context // STEP) * STEP,
        batch=batch or _BATCH,
        cache_k=cache or "f16",
        cache_v=cache or "f16",
        makes_vectors=model.kind is not Kind.CHAT,
    )
    weights = model.size_bytes + model.projector_bytes
    return estimate_memory(model.header, weights, use).total_bytes


def _trained(model: Model) -> int:
    """A whole number of steps, as what is between is rounded up by engines that then warn."""
    trained = min(model.trained, _MOST)
    return max(trained // STEP * STEP, min(trained, STEP))
