"""Demand: what is known of a request before its tokens are, and which context holds it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.need.bounds import need_of


class Demand(msgspec.Struct, frozen=True):
    """What is known about a request before its tokens are. `contexts`: the smallest first.
    `turn`: tokens of an average turn of the model's conversations. `clamps`: an answer's maximum
    that does not fit is lowered."""

    model: ModelConfig
    endpoint: str
    answer: int | None
    default_answer: int
    least: int
    turn: int
    contexts: Sequence[int]
    largest: int
    turn_bytes: int | None
    is_plain: bool
    clamps: bool
    at_least: int = 0

    def need(self, prompt: int) -> int:
        own = need_of(prompt, self.answer, self.default_answer, self.largest, self.least)
        return max(own, self.at_least)

    def own_need(self, prompt: int) -> int:
        """Whatever context was asked for."""
        return need_of(prompt, self.answer, self.default_answer, self.largest, self.least)

    def holding(self, need: int) -> int | None:
        for context in self.contexts:
            if context >= need:
                return context
        return None
