"""Variants: what is known about them, from the configuration, their engines or measurements."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from trio_gateway.engine.scheduling.events import Keep, VariantFacts, VariantKey
from trio_gateway.engine.scheduling.ticket_queue import Ticket


class ModelGone(Exception):
    """A request has begun with a configuration that had the model; the one in force has not."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the configuration was reloaded, and has no model {model} any more")


class Variants:
    """`variants` must be sorted by context within each model. `[model]` has those of a model, and
    raises ModelGone, as does what asks for a model's contexts."""

    def __init__(self, variants: Sequence[VariantFacts]) -> None:
        self._of_model: dict[str, list[VariantFacts]] = {}
        self._contexts: dict[VariantKey, int] = {}  # what engines said
        self._slots_of: dict[VariantKey, int] = {}  # what engines said
        self._shared_of: dict[VariantKey, int | None] = {}  # what engines said
        self._contexts_of: dict[str, list[int]] = {}  # by model, in the variants' order
        self._ascending: dict[str, list[int]] = {}
        self._memory: dict[VariantKey, int] = {}  # what was measured
        self._has_run: set[VariantKey] = set()  # those that were measured from start to end
        self._kept: dict[str, Keep] = {}  # by model: what was asked for since the start
        self._list(variants)

    def _list(self, variants: Sequence[VariantFacts]) -> None:
        of_model: dict[str, list[VariantFacts]] = {}
        for facts in variants:
            of_model.setdefault(facts.key.model, []).append(facts)
        self._of_model, self._contexts_of, self._ascending = of_model, {}, {}
        for model in of_model:
            self._list_contexts(model)

    def replace(self, variants: Sequence[VariantFacts], forget: Collection[VariantKey]) -> None:
        """Others take their place. `forget`: what was learned of these holds no more."""
        for key in forget:
            for learned in (self._contexts, self._slots_of, self._shared_of, self._memory):
                learned.pop(key, None)
            self._has_run.discard(key)
        self._list(variants)
        self._kept = {model: keep for model, keep in self._kept.items() if model in self}

    def __contains__(self, model: str) -> bool:
        return model in self._of_model

    def get(self, model: str) -> Sequence[VariantFacts]:
        """None at all of a model that the configuration has no more."""
        return self._of_model.get(model, ())

    def all_keys(self) -> set[VariantKey]:
        return {facts.key for of_model in self._of_model.values() for facts in of_model}

    def all(self) -> Sequence[Sequence[VariantFacts]]:
        return [*self._of_model.values()]

    def __getitem__(self, model: str) -> list[VariantFacts]:
        if (found := self._of_model.get(model)) is None:
            raise ModelGone(model)
        return found

    # -- contexts and slots --------------------------------------------------------------------

    def context_of(self, facts: VariantFacts) -> int:
        """Tokens that one request gets: what an engine of it said, or what is declared."""
        return self._contexts.get(facts.key, facts.context)

    def contexts(self, model: str) -> list[int]:
        """Tokens that one request gets in each variant of the model."""
        if (contexts := self._contexts_of.get(model)) is None:
            raise ModelGone(model)
        return [*contexts]

    def _list_contexts(self, model: str) -> None:
        contexts = [self.context_of(facts) for facts in self._of_model[model]]
        self._contexts_of[model], self._ascending[model] = contexts, sorted(contexts)

    def note_context(self, facts: VariantFacts, context: int) -> bool:
        """What an engine said; whether that is news."""
        news = self.context_of(facts) != context
        self._contexts[facts.key] = context
        if news:
            self._list_contexts(facts.key.model)
        return news

    def slots_of(self, facts: VariantFacts, need: int) -> int:
        """Requests of this need at a time: as an engine of it said, or as declared, or one. At
        least one, which may have all."""
        slots = max(self._slots_of.get(facts.key, facts.parallel or 1), 1)
        shared = self._shared_of.get(facts.key)
        return slots if shared is None else max(min(slots, shared // max(need, 1)), 1)

    def places(self, facts: VariantFacts) -> int | None:
        """Requests at a time, as an engine of it said, or as declared; None: not known yet."""
        return self._slots_of.get(facts.key, facts.parallel)

    def note_slots(self, facts: VariantFacts, slots: int, shared_tokens: int | None) -> None:
        self._slots_of[facts.key], self._shared_of[facts.key] = slots, shared_tokens

    def smallest_holding(self, model: str, need: int) -> VariantFacts | None:
        holding = [f for f in self._of_model[model] if self.context_of(f) >= need]
        return min(holding, key=self.context_of, default=None)

    def size_for(self, model: str, need: int) -> int | None:
        """The smallest context of the model that holds the need; None: none does."""
        for context in self._ascending.get(model, ()):  # the configuration may have it no more
            if context >= need:
                return context
        return None

    def sizes_for(self, ticket: Ticket) -> tuple[int, int] | None:
        """The ticket's size and start size; None: no variant holds it. The largest variant has to
        do where none holds what is wished for."""
        size = self.size_for(ticket.model, ticket.need)
        if size is None:
            return None
        if ticket.start_need <= size:
            return size, size
        wished = self.size_for(ticket.model, ticket.start_need)
        return size, self._ascending[ticket.model][-1] if wished is None else wished

    # -- keeping -------------------------------------------------------------------------------

    def keep(self, wish: Keep) -> None:
        self._kept[wish.model] = wish

    def is_pinned(self, facts: VariantFacts) -> bool:
        kept = self._kept.get(facts.key.model)
        return facts.pinned or (kept is not None and kept.pinned)

    def idle_timeout_s(self, facts: VariantFacts) -> float:
        """Seconds; infinite where it was asked to stay."""
        kept = self._kept.get(facts.key.model)
        if kept is None or kept.idle_timeout_s is None:
            return facts.idle_timeout_s
        return kept.idle_timeout_s

    # -- memory --------------------------------------------------------------------------------

    def note_memory(self, facts: VariantFacts, measured_bytes: int) -> None:
        self._memory[facts.key] = max(measured_bytes, self._memory.get(facts.key, 0))

    def measured(self, facts: VariantFacts) -> int | None:
        """The most bytes that an engine of it was seen to hold."""
        return self._memory.get(facts.key)

    def note_run(self, facts: VariantFacts) -> None:
        """An engine of it is gone: what was measured is all that it came to hold."""
        if facts.key in self._memory:
            self._has_run.add(facts.key)

    def memory_of(self, facts: VariantFacts) -> int | None:
        """Bytes that an engine of this variant holds: declared, measured or estimated, in this
        order; None: nothing is known. The larger of the last two during its first run, as it
        grows with its first long prompts."""
        measured = self._memory.get(facts.key)
        if facts.memory_declared or measured is None:
            return facts.memory_bytes
        if facts.key in self._has_run or facts.memory_bytes is None:
            return measured
        return max(measured, facts.memory_bytes)
