"""Explanation: what would happen to a request, and why, without doing it."""

from __future__ import annotations

import msgspec

from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.scheduling.preview import Preview
from trio_gateway.engine.scheduling.words import lack
from trio_gateway.models.choosing import after, as_last_resort, suits
from trio_gateway.models.counting.counter import Count, TokenCounter
from trio_gateway.models.model_selector import ContextLengthExceeded, ModelSelector
from trio_gateway.models.names import Wanted
from trio_gateway.models.need.bounds import Bounds
from trio_gateway.models.need.excess import Terms, sentence
from trio_gateway.models.need.measured_form import Form
from trio_gateway.models.selection import Selection

_SECONDS_DIGITS = 2


class Question(msgspec.Struct, frozen=True):
    """A request that is to be explained. `is_ceiling`, `terms`: of its answer's maximum. `others`:
    the same for what is asked next of several models, if this one cannot have it. `wish`: tokens
    that the context should have."""

    wanted: Wanted
    form: Form
    is_ceiling: bool
    terms: Terms
    others: tuple[Question, ...] = ()
    wish: int = 0


class VariantRow(msgspec.Struct, frozen=True):
    """`context`: tokens that one request gets. `holds`: whether that is enough."""

    variant: str
    context: int
    holds: bool


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers are tokens, or seconds in `…_s`. None where nothing is known.

    `prompt`: what the choice was made with, from `prompt_source`; `counted` by `counted_by`: what
    is known for certain. `refused`: the error that a client would get. `back_off`: what it would
    wait for failed, and is left alone for a while. `choice`: by which rule this model was taken of
    several.
    """

    model: str
    endpoint: str
    bounds: Bounds
    counted: int | None
    counted_by: str | None
    is_exact: bool
    variants: list[VariantRow]
    prompt: int | None = None
    prompt_source: str | None = None
    answer: int | None = None
    clamped_from: int | None = None
    need: int | None = None
    start_need: int | None = None
    variant: str | None = None
    reason: str = ""
    refused: str | None = None
    back_off: str | None = None
    decision: str | None = None
    engine_state: str | None = None
    evicts: list[str] = []
    expected_wait_s: float | None = None
    expected_load_s: float | None = None
    kv: str = ""
    choice: str | None = None


async def explain(
    selector: ModelSelector,
    counter: TokenCounter,
    overview: Overview,
    kv: KvCarryover,
    asked: Question,
) -> Explanation:
    """Counts and chooses as for a real request, and changes nothing."""
    kept, passed = None, list[str]()
    for one in (asked, *asked.others):
        wanted = after(one.wanted, passed)
        found, selection = await _explain(
            selector, counter, overview, kv, msgspec.structs.replace(one, wanted=wanted)
        )
        largest = max(row.context for row in found.variants)
        if selection is not None and suits(wanted, selection, is_large=largest >= one.wish):
            return found
        passed.append(found.model)
        rank = largest, found.refused is None
        if kept is None or rank > kept[0]:
            kept = rank, found, wanted.chosen
    assert kept is not None
    _, found, chosen = kept
    if chosen is None or found.refused is not None:
        return found
    return msgspec.structs.replace(found, choice=str(as_last_resort(chosen)))


async def _explain(
    selector: ModelSelector,
    counter: TokenCounter,
    overview: Overview,
    kv: KvCarryover,
    asked: Question,
) -> tuple[Explanation, Selection | None]:
    """None: it is too long."""
    wanted, form, model = asked.wanted, asked.form, asked.wanted.model
    bounds = Bounds(form.lower_bound(model.image_tokens), selector.upper_bound(model, form))
    counted = await counter.count(model, form)
    start = _start(wanted, form.kind, bounds, counted)
    try:
        selection = await selector.select_variant(
            model, form, wanted.at_least, is_ceiling=asked.is_ceiling
        )
    except ContextLengthExceeded as error:
        refused = sentence(error.excess, asked.terms)
        start = msgspec.structs.replace(
            start, variants=_rows(model, overview, None), refused=refused, reason="too long"
        )
        return start, None
    preview = overview.preview(
        model.name, selection.need, selection.start_need, selection.least_need
    )
    chosen = preview.variant.variant if preview.variant is not None else None
    waits = preview.pause is not None and preview.pause.is_waited_out
    paused = f"{preview.pause}. Last failure: {preview.pause.reason}" if preview.pause else None
    found = msgspec.structs.replace(
        start,
        variants=_rows(model, overview, selection.need),
        prompt=selection.prompt,
        prompt_source=selection.source.value,
        answer=selection.answer,
        clamped_from=selection.clamped,
        need=selection.need,
        start_need=selection.start_need,
        variant=chosen,
        reason=_reason(selection, preview),
        refused=None if waits else paused,
        back_off=paused if waits else None,
        decision=preview.how.value,
        engine_state=preview.engine_state.value if preview.engine_state is not None else None,
        evicts=[*map(str, preview.evicts)],
        expected_wait_s=_rounded(preview.expected_wait_s),
        expected_load_s=_rounded(preview.expected_load_s),
        kv=await _kv(model, overview, kv, preview),
    )
    return found, selection


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, _SECONDS_DIGITS)


def _start(wanted: Wanted, endpoint: str, bounds: Bounds, counted: Count | None) -> Explanation:
    model = wanted.model
    return Explanation(
        model=model.name,
        endpoint=endpoint,
        bounds=bounds,
        counted=counted.tokens if counted is not None else None,
        counted_by=counted.source.value if counted is not None else None,
        is_exact=counted is not None and counted.is_exact,
        variants=[],
        choice=None if wanted.chosen is None else str(wanted.chosen),
    )


def _rows(model: ModelConfig, overview: Overview, need: int | None) -> list[VariantRow]:
    contexts = overview.contexts_of(model.name)
    return [
        VariantRow(variant.name, context, need is not None and context >= need)
        for variant, context in zip(model.variants, contexts, strict=True)
    ]


def _reason(selection: Selection, preview: Preview) -> str:
    if preview.shortage is not None and preview.variant is not None:
        return f"it waits for memory: {lack(preview.shortage, preview.variant.model)}"
    if preview.is_counted_there:
        return f"the engine that starts is to count it first ({selection.reason})"
    if preview.engine_state is not None:
        return f"its running engine holds the need ({selection.reason})"
    return selection.reason


async def _kv(model: ModelConfig, overview: Overview, kv: KvCarryover, preview: Preview) -> str:
    """Whether a saved KV cache would be restored."""
    if not model.kv_carryover:
        return "off for this model (kv_carryover)"
    if preview.engine_state is not None:
        return "nothing to restore: an engine is running"
    if preview.variant is None:
        return "nothing to restore: no variant fits"
    variant = _variant(model, preview.variant)
    if (fault := overview.carryover_fault(model, variant)) is not None:
        return fault
    context = overview.context_of(preview.variant)
    return await kv.preview(model.name, variant, EngineFacts(), context)


def _variant(model: ModelConfig, key: VariantKey) -> VariantConfig:
    return next(v for v in model.variants if v.name == key.variant)
