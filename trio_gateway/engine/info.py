"""EngineInfo: what a ready engine turned out to be, whatever was declared."""

from __future__ import annotations

import logging

import msgspec

from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

DEFAULT_SLOTS = 1


class EngineInfo(msgspec.Struct, frozen=True):
    """A ready engine, for pages and headers. `pid` None: it runs elsewhere. `slots`: those that the
    gateway fills, by `parallel` or by what the engine says. `template`, `media`, `build`: see
    EngineFacts.
    """

    pid: int | None
    slots: int
    context: int
    load_s: float
    shared_tokens: int | None = None
    template: str | None = None
    media: frozenset[str] | None = None
    build: str | None = None


def info_of(
    key: VariantKey,
    variant: VariantConfig,
    kind: EngineKind,
    facts: EngineFacts,
    pid: int | None,
    load_s: float,
) -> EngineInfo:
    """From what is declared and what the engine itself said; a contradiction is logged."""
    context = min(variant.context, facts.context or variant.context)
    shared = kind.shared_tokens(variant.engine_args, facts)
    if context < variant.context:
        cure = kind.context_cure(variant.context, variant.engine_args, facts, shared)
        log.error(
            "%s declares a context of %d tokens, but one request gets %d: %s; using %d",
            key, variant.context, context, cure, context,
        )  # fmt: skip
    slots = variant.parallel or facts.slots or DEFAULT_SLOTS
    holds = min(context, variant.holds)
    return EngineInfo(pid, slots, holds, load_s, shared, facts.template, facts.media, facts.build)


def ready_words(info: EngineInfo, base_url: str) -> str:
    """For the log, after "ready": in which time, where, and for how much at a time."""
    where = f"pid {info.pid}" if info.pid else "no process here"
    return (
        f"in {info.load_s:.2f} s ({where}, {base_url}, context {info.context}, "
        f"{info.slots} at a time)"
    )
