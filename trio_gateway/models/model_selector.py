"""ModelSelector: from a request to its need, and to the smallest variant that holds it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.overview import Overview
from trio_gateway.models.counting.counter import Count, TokenCounter
from trio_gateway.models.need.bounds import (
    MARGIN_TOKENS,
    least_answer,
    with_room,
)
from trio_gateway.models.need.calibration import BYTES_PER_TOKEN, Calibration, CountSource
from trio_gateway.models.need.demand import Demand
from trio_gateway.models.need.excess import Excess, Known, between, excess_of, sentence
from trio_gateway.models.need.measured_form import Form
from trio_gateway.models.selection import Selection

log = logging.getLogger(__name__)

_NOTHING_COUNTS = "nothing can count exactly"


class ContextLengthExceeded(Exception):
    """The request needs more tokens than the model's largest variant holds; `excess` has what an
    answer to its client says."""

    def __init__(self, excess: Excess) -> None:
        super().__init__(sentence(excess))
        self.excess = excess


class ModelSelector:
    """Chooses variants; has tokens counted where it matters."""

    def __init__(self, config: GatewayConfig, overview: Overview, counter: TokenCounter) -> None:
        self._config, self._overview, self._counter = config, overview, counter

    def select_any(self, model: ModelConfig, endpoint: str, at_least: int = 0) -> Selection:
        """For a request that any engine of the model can answer."""
        contexts = self._overview.contexts_of(model.name)
        need = max(at_least, 1)
        running = self._overview.engine_of(model.name)
        context = min((c for c in contexts if c >= need), default=max(contexts))
        reason = "any variant will do"
        if running is not None and running.info is not None and running.info.context >= need:
            context, reason = running.info.context, "any variant will do, and this one is running"
        return Selection(
            model=model, endpoint=endpoint, prompt=0, source=CountSource.BOUND, answer=0,
            need=need, start_need=need, context=context, reason=reason,
        )  # fmt: skip

    async def select_variant(
        self,
        model: ModelConfig,
        form: Form,
        at_least: int = 0,
        *,
        is_ceiling: bool = False,
        refuse_media: Callable[[], None] | None = None,
    ) -> Selection:
        """The need of a request, and the smallest variant that holds it.

        Args:
            at_least: tokens that the context is to have, whatever the request needs.
            is_ceiling: the answer's maximum is no more than that to its client, so it is lowered
                where it does not fit, unless the model's `clamp_answer` says otherwise.
            refuse_media: to be called if a chat has any, before anything is counted.

        Raises:
            ContextLengthExceeded: no variant is large enough.
        """
        size = form.size()
        if size.media and refuse_media is not None:
            refuse_media()
        clamps = is_ceiling if model.clamp_answer is None else model.clamp_answer
        calibration = self._counter.calibration(model)
        demand = self._demand(
            model, calibration, form.kind, form.answer, size.turn, at_least,
            is_plain=form.is_plain(size), clamps=clamps,
        )  # fmt: skip
        # Read with the bound: answers that come in the meantime may raise it.
        correction = calibration.correction(CountSource.BOUND)
        upper = form.upper_bound(calibration.overhead, model.image_tokens, size) + correction
        bound = Count(upper, CountSource.BOUND, False, correction)
        need, smallest = demand.need(upper), demand.contexts[0]
        if need <= smallest:
            reason = "the smallest holds even the bound"
            return self._selected(demand, bound, need, smallest, reason, least_need=0)
        running = self._overview.engine_of(model.name)
        if running is not None and running.info is not None and running.info.context >= need:
            reason = "the running engine holds even the bound"
            return self._selected(demand, bound, need, running.info.context, reason, least_need=0)
        lower, choice = form.lower_bound(model.image_tokens), demand.holding(need)
        if choice is not None and choice == demand.holding(least := demand.need(lower)):
            reason = "both bounds need this one"  # no count could choose another
            return self._selected(demand, bound, need, choice, reason, least_need=least)
        counted = await self._counter.count(model, form)
        return self._by(demand, counted, lower, bound, is_final=running is not None)

    async def select_again(
        self, selection: Selection, form: Form, at_least: int = 0
    ) -> Selection | None:
        """For one with a `least_need`, as an engine counts it; None: none can.

        Raises:
            ContextLengthExceeded: no variant is large enough.
        """
        model = selection.model
        counted = await self._counter.count(model, form)
        if counted is None or not (counted.is_exact or counted.source is CountSource.ENGINE):
            return None
        demand = self._demand_of(selection, form.answer, at_least)
        bound = Count(selection.prompt, selection.source, False, selection.correction)
        lower = form.lower_bound(model.image_tokens)
        return self._by(demand, counted, lower, bound, is_final=True)

    def select_larger(
        self, selection: Selection, prompt: int, refused_context: int, *, is_least: bool = False
    ) -> Selection:
        """After an engine of `refused_context` said how many tokens the prompt has, or how many at
        least.

        Raises:
            ContextLengthExceeded: no variant is large enough.
        """
        if not is_least or prompt > selection.prompt:
            self._learn(selection, prompt)
        # Not only what a count says: the engine that refused is too small whatever that is.
        demand = self._demand_of(selection, selection.asked)
        larger = [c for c in demand.contexts if c > refused_context]
        demand = msgspec.structs.replace(demand, contexts=larger or demand.contexts)
        if is_least and not larger:
            chosen = self._by_least(demand, selection, prompt)
        elif not larger and not (selection.clamps and prompt < refused_context):
            raise _too_long(demand, prompt)
        else:
            chosen = self._by_count(demand, Count(prompt, CountSource.ENGINE))
        reason = f"an engine with a context of {refused_context} refused the prompt"
        need = max(chosen.need, refused_context + bool(larger))
        return msgspec.structs.replace(
            chosen, need=need, start_need=max(need, chosen.start_need), reason=reason
        )

    def _by_least(self, demand: Demand, selection: Selection, prompt: int) -> Selection:
        """The largest engine has refused prompt and answer together, and read no more of the prompt
        than that takes: the answer gets what is left beside all that the prompt may have, if that
        is less than was asked for."""
        most = max(selection.prompt, prompt)
        left = max(demand.largest - most - MARGIN_TOKENS, demand.least)
        is_possible = demand.largest - prompt - MARGIN_TOKENS >= left
        if demand.clamps and is_possible and left < (selection.answer or 0):
            return self._clamped(demand, Count(most, CountSource.BOUND, False), left)
        found, known = between(prompt, most, demand.largest, demand.answer)
        raise _too_long(demand, found, known)

    def upper_bound(self, model: ModelConfig, form: Form) -> int:
        """Never fewer tokens than the prompt has, as far as this model's answers have shown."""
        calibration = self._counter.calibration(model)
        upper = form.upper_bound(calibration.overhead, model.image_tokens)
        return upper + calibration.correction(CountSource.BOUND)

    def note_answer(self, selection: Selection, usage: Usage) -> None:
        """Compare an answer's own numbers with what the request was taken for."""
        calibration = self._learn(selection, usage.prompt_tokens)
        if calibration is not None and selection.turn_bytes is not None:
            turn = usage.completion_tokens + selection.turn_bytes // BYTES_PER_TOKEN
            calibration.note_turn(turn)

    def _learn(self, selection: Selection, prompt_tokens: int) -> Calibration | None:
        """What has learned from it, if there was anything to learn."""
        if not selection.is_plain:
            return None
        calibration = self._counter.calibration(selection.model)
        calibration.note_answer(
            selection.prompt, selection.source, prompt_tokens, selection.correction
        )
        return calibration

    # -- choosing ------------------------------------------------------------------------------

    def _demand(
        self,
        model: ModelConfig,
        calibration: Calibration,
        endpoint: str,
        answer: int | None,
        turn_bytes: int | None,
        at_least: int,
        *,
        is_plain: bool,
        clamps: bool,
    ) -> Demand:
        contexts = sorted(self._overview.contexts_of(model.name))
        largest, turn = contexts[-1], round(calibration.average_turn_tokens)
        least = least_answer(model.min_answer_tokens, largest)
        if (default := self._config.server.default_answer_tokens) is None:
            # With room for an average turn, no conversation moves up in the middle of its answer.
            default = max(least, turn)
        return Demand(
            model, endpoint, answer, default, least, turn,
            contexts, largest, turn_bytes, is_plain, clamps, at_least,
        )  # fmt: skip

    def _demand_of(self, selection: Selection, answer: int | None, at_least: int = 0) -> Demand:
        """Of a request that was selected for before."""
        return self._demand(
            selection.model, self._counter.calibration(selection.model), selection.endpoint,
            answer, selection.turn_bytes, at_least,
            is_plain=selection.is_plain, clamps=selection.clamps,
        )  # fmt: skip

    def _by(
        self, demand: Demand, counted: Count | None, lower: int, bound: Count, *, is_final: bool
    ) -> Selection:
        """`is_final`: no engine that runs later is to be asked again."""
        if counted is not None and counted.is_exact:
            return self._by_count(demand, counted)
        if counted is not None:
            if counted.tokens < bound.tokens:
                bound = msgspec.structs.replace(counted, tokens=max(counted.tokens, lower))
            bound = msgspec.structs.replace(bound, why=counted.why)
        selected = self._by_bounds(demand, lower, bound)
        if is_final:
            return selected
        least_need = min(demand.need(lower), demand.largest)
        is_provisional = demand.need(bound.tokens) > demand.largest
        return msgspec.structs.replace(
            selected, least_need=least_need, is_provisional=is_provisional
        )

    def _selected(
        self,
        demand: Demand,
        counted: Count,
        need: int,
        context: int,
        reason: str,
        *,
        least_need: int | None = None,
    ) -> Selection:
        """`need`: by what was counted."""
        model, start_need = demand.model, need
        if demand.answer != 0:  # what generates nothing does not grow
            own_need = need if need > demand.at_least else demand.own_need(counted.tokens)
            start_need = max(need, with_room(own_need, model.headroom, demand.turn))
        return Selection(
            model=model, endpoint=demand.endpoint, prompt=counted.tokens, source=counted.source,
            is_exact=counted.is_exact, answer=demand.answer, need=need, start_need=start_need,
            context=context, reason=reason, clamps=demand.clamps, turn_bytes=demand.turn_bytes,
            is_plain=demand.is_plain, correction=counted.correction, least_need=least_need,
        )  # fmt: skip

    def _by_count(self, demand: Demand, counted: Count) -> Selection:
        choice = demand.holding(need := demand.need(counted.tokens))
        if choice is not None:
            reason = "the smallest that holds the counted tokens"
            return self._selected(demand, counted, need, choice, reason)
        left = demand.largest - counted.tokens - MARGIN_TOKENS
        if demand.clamps and demand.answer and left >= demand.least:
            return self._clamped(demand, counted, left)
        raise _too_long(demand, counted.tokens)

    def _by_bounds(self, demand: Demand, lower: int, bound: Count) -> Selection:
        """Nothing can count exactly: the largest variant gets what may not fit, and its engine has
        the last word, with the exact numbers."""
        choice = demand.holding(need := demand.need(bound.tokens))
        if choice is not None:
            reason = f"{bound.why or _NOTHING_COUNTS}, so the bound decides"
            return self._selected(demand, bound, need, choice, reason)
        # By what is certain: an engine that counts prompt and answer together says what to lower
        # it to, where that was not enough, and any other ends the answer with its context.
        left = demand.largest - lower - MARGIN_TOKENS
        if demand.clamps and demand.answer and demand.least <= left < demand.answer:
            return self._clamped(demand, bound, left)
        if demand.need(lower) > demand.largest:
            found, known = between(lower, bound.tokens, demand.largest, demand.answer)
            raise _too_long(demand, found, known)
        reason = f"{bound.why or _NOTHING_COUNTS}, so the engine of the largest decides"
        selected = self._selected(demand, bound, need, demand.largest, reason)
        return msgspec.structs.replace(
            selected, need=demand.largest, start_need=demand.largest, may_exceed=True
        )

    def _clamped(self, demand: Demand, counted: Count, answer: int) -> Selection:
        lowered = msgspec.structs.replace(demand, answer=answer)
        reason = f"the answer's maximum is lowered from {demand.answer} to {answer} (clamp_answer)"
        need = min(lowered.need(counted.tokens), demand.largest)
        selected = self._selected(lowered, counted, need, demand.largest, reason)
        return msgspec.structs.replace(selected, clamped=demand.answer, start_need=need)


def _too_long(demand: Demand, prompt: int, known: Known = Known.EXACTLY) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        excess_of(
            demand.model, demand.largest, prompt, demand.answer,
            clamps=demand.clamps, known=known,
        )
    )  # fmt: skip
