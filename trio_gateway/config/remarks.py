"""Remarks on a valid configuration: what will not work as it was meant to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trio_gateway.config.choice_schema import ChoiceConfig, Strategy
from trio_gateway.config.engine_args import CONTEXT_STEP, EngineArgs, swa_full
from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.reading.familiar_words import GLOBALS
from trio_gateway.config.schema import ModelConfig, ServerConfig, VariantConfig
from trio_gateway.config.server_options import (
    API_KEY,
    API_PREFIX,
    BATCH,
    BY_SPELLING,
    CONTEXT_PER_SLOT,
    PHYSICAL_BATCH,
    POOLING,
    UNIFIED_KV,
    canonical,
)

_OPTION = re.compile(r"--?[A-Za-z][\w-]*")


def on_globals(names: Iterable[str]) -> list[str]:
    """`names` are the globals that a file has left."""
    found = []
    for name in sorted(names):
        if name in GLOBALS:
            found.append(f'the global "{name}" has no effect: {GLOBALS[name]}')
        elif name != "pools" and name.lower() in ("pool", "pools"):
            found.append(f'the global "{name}" has no effect; pools are in the table "pools"')
    return found


def on_variants(
    models: Sequence[ModelConfig],
    paths: Sequence[Sequence[str]],
    server: ServerConfig,
    environment: Mapping[str, str],
) -> list[str]:
    """`paths`: for each model, the path of each of its variants in the file. `environment`: what
    engines inherit."""
    found = []
    for model, where in zip(models, paths, strict=True):
        first: VariantConfig | None = None
        for variant, path in zip(model.variants, where, strict=True):
            if first is not None and first.holds == variant.holds:
                found.append(
                    f'{path}: has the same context as "{first.name}", {variant.holds}, so that '
                    "it is never started; remove one of the two, or change its context"
                )
            else:
                first = variant
            if model.engine.kind == LLAMACPP.kind:
                found += [f"{path}: {remark}" for remark in _on_args(variant)]
                if server.kv_carryover is not None and model.kv_carryover:
                    args = EngineArgs(variant.args, {**environment, **variant.env})
                    if (how := swa_full(args)) is not None:
                        found.append(f"{path}: {no_carryover(how)}")
    return found


def on_choices(
    choices: Sequence[ChoiceConfig], models: Sequence[ModelConfig], pools: Mapping[str, PoolConfig]
) -> Iterator[str]:
    """Members that no request will get, or only in place of each other."""
    by_name = {model.name: model for model in models}
    for choice in choices:
        members = [by_name[member.model] for member in choice.members]
        largest, pooled = 0, dict[str, ModelConfig]()
        for model in members:
            if choice.strategy is Strategy.FITS and model.largest_context <= largest:
                yield (
                    f"choices.{choice.name}: {model.name} holds no more than those before it, so "
                    "that it is taken for what only it can do; put it before them"
                )
            largest = max(largest, model.largest_context)
            before = pooled.setdefault(model.pool, model)
            pool = pools.get(model.pool)
            if choice.strategy is not Strategy.SPILL or before is model or pool is None:
                continue
            if pool.engines == 1:
                yield (
                    f"choices.{choice.name}: {before.name} and {model.name} share the pool "
                    f"{pool.name}, which has one engine at a time, so that one would have to leave "
                    "for the other; give them different pools"
                )


def no_carryover(how: str) -> str:
    """`how`: as `swa_full` says it."""
    return (
        f"no KV carry-over with {how}: what an engine saves of a sliding window lacks what it goes "
        "back to, and it would answer wrongly after a restore; without it, engines since October "
        "2026 restore such models"
    )


def batch_limit(variant: VariantConfig) -> str | None:
    """Why its engine takes no input as long as its context, and what to do about it; None if it
    does."""
    if variant.largest_input is None:
        return None
    args = variant.engine_args
    wanted, given = [], []
    physical = args.number(PHYSICAL_BATCH) or args.physical_batch
    for option, size in ((PHYSICAL_BATCH, physical), (BATCH, args.batch)):
        given.append(f"{option.name} {size}")
        if size < variant.context:
            wanted.append(option.name)
    return (
        f"its engine computes each input at once, so one has no more than {variant.largest_input} "
        f"tokens ({' and '.join(given)}); raise {' and '.join(wanted)} to {variant.context}"
    )


def _on_args(variant: VariantConfig) -> Iterator[str]:
    """Arguments of llama-server that will not work as they were meant to."""
    for arg in variant.args:
        if words := _words_in_one(arg):
            apart = ", ".join(f'"{word}"' for word in words)
            yield f'"{arg}" is one argument; write {apart}'
    prefix = variant.engine_args.value(API_PREFIX)
    if prefix and not prefix.startswith("/"):
        yield f'{API_PREFIX.name} "{prefix}" is no path, so nothing gets there; write "/{prefix}"'
    if short := _on_context(variant):
        yield short
    if (why := batch_limit(variant)) is not None:
        yield f"context is {variant.context}, but {why}; using {variant.holds}"
    if variant.gives_token_vectors and not variant.engine_args.has(POOLING):
        yield (
            "its model's file names no pooling, so each token gets a vector, which /v1/embeddings "
            f"has no place for; say which one is meant with {POOLING.name} (mean, cls or last)"
        )
    if EngineArgs(variant.args).value(API_KEY):
        yield (
            "all users of this machine can see a key that is among the arguments; "
            f"{API_KEY.name} is better left to `api_key`"
        )


def _words_in_one(arg: str) -> list[str]:
    """The words of an argument that was meant as several; none if it was not."""
    option, *rest = arg.split(maxsplit=1) or [""]
    if not rest or _OPTION.fullmatch(option) is None:
        return []
    if canonical(option) not in BY_SPELLING and len(rest[0].split()) > 1:
        return []  # perhaps a script, or a text
    words = rest[0].split()
    has_options = any(canonical(word) in BY_SPELLING for word in words)
    return [option, *(words if has_options else [rest[0].strip()])]


def _on_context(variant: VariantConfig) -> str | None:
    """Where llama-server's arguments give a request less than the variant promises."""
    args = variant.engine_args
    total, slots = args.context or 0, args.slots or 1
    split = 1 if args.is_on(UNIFIED_KV) else slots
    real = -(-total // split // CONTEXT_STEP) * CONTEXT_STEP
    per_slot = args.number(CONTEXT_PER_SLOT) or 0
    if 0 < per_slot < variant.context and (not total or per_slot <= real):
        return (
            f"context is {variant.context}, but {CONTEXT_PER_SLOT.name} {per_slot} gives a request "
            f"no more; using {per_slot}. Raise it, or lower context"
        )
    if not total or variant.context <= real:
        return None
    given = f"-c {total}" + (f", split between {split} slots," if split > 1 else "")
    return (
        f"context is {variant.context}, but {given} gives a request {real} tokens; using {real}. "
        f"Raise -c to {variant.context * split}, or lower context"
    )
