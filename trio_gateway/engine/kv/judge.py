"""Judge: whether a restore did what it promised, as the first answer after it shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.policy import LEAST_TOKENS, has_helped, next_of
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)


class Judge:
    """Of one engine's restores. A model whose restores do not help gets no more in this run."""

    def __init__(self, owner: KvCarryover, key: VariantKey) -> None:
        self._owner, self._key = owner, key
        self._expected: dict[int, int] = {}  # by ticket: tokens that a restore should spare it

    def expect(
        self, ids: Sequence[int] | None, tokens: int, prompts: Mapping[int, Sequence[int]]
    ) -> None:
        """A conversation of that many tokens was restored while these prompts waited, by ticket."""
        if (found := next_of(ids, tokens, prompts)) is not None:
            ticket, shared = found
            self._expected = {ticket: shared}

    def forget(self) -> None:
        """What was restored is gone."""
        self._expected = {}

    def note_answer(self, ticket: int, usage: Usage) -> None:
        self._owner.costs(self._key.model).note_usage(usage)
        expected = self._expected.get(ticket, 0)
        self._expected = {}  # by the next answer the slots hold something else
        if expected < LEAST_TOKENS or usage.cached_tokens is None:
            return
        if not has_helped(expected, usage.cached_tokens):
            why = (
                f"only {usage.cached_tokens} of {expected} restored tokens were used; this model's "
                "slots are not saved again in this run"
            )
            self._owner.unhelpful[self._key.model] = why
            log.warning("%s: %s", self._key, why)
