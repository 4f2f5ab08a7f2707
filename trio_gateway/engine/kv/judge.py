"""Judge: whether a restore did what it promised, as the first answer after it shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.file import KvEntry
from trio_gateway.engine.kv.policy import (
    LEAST_TOKENS,
    MISSES_MAX,
    Expected,
    Verdict,
    has_helped,
    next_of,
)
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

_ANSWERS_MAX = 64  # that are remembered, of which each slot holds one at the most


class Judge:
    """Of one engine's restores. A model whose restores do not help gets no more in this run."""

    def __init__(self, owner: KvCarryover, key: VariantKey) -> None:
        self._owner, self._key = owner, key
        self._expected: Expected | None = None
        self._prompts: dict[int, int] = {}  # by the tokens of prompt and answer: of the prompt

    def expect(
        self, ids: Sequence[int] | None, entry: KvEntry, prompts: Mapping[int, Sequence[int]]
    ) -> None:
        """A conversation was restored while these prompts waited, by ticket."""
        found = next_of(ids, entry.tokens, entry.prompt_tokens, prompts)
        if found is not None:
            self._expected = found

    def forget(self) -> None:
        """What was restored is gone."""
        self._expected = None

    def prompt_tokens(self, held_tokens: int) -> int | None:
        """How many of a conversation's tokens its last prompt had; None: not known."""
        # A slot lacks the last token of an answer, which nothing was read after.
        return self._prompts.get(held_tokens + 1) or self._prompts.get(held_tokens)

    def note_answer(self, ticket: int, usage: Usage) -> None:
        """What an answer says about prompt speed, and the restore that should have helped it."""
        if usage.speed is not None:
            self._owner.costs(self._key.model).note_usage(usage)
        whole = usage.prompt_tokens + usage.completion_tokens
        self._prompts.pop(whole, None)
        self._prompts[whole] = usage.prompt_tokens
        if len(self._prompts) > _ANSWERS_MAX:
            del self._prompts[next(iter(self._prompts))]
        if (expected := self._expected) is None:
            return
        self._expected = None  # by the next answer slots hold others
        if expected.ticket != ticket or expected.tokens < LEAST_TOKENS:
            return
        if usage.cached_tokens is not None:
            self._judge(expected, usage.cached_tokens)

    def _judge(self, expected: Expected, cached_tokens: int) -> None:
        misses, model = self._owner.misses, self._key.model
        used = f"{cached_tokens} of {expected.tokens} restored tokens were used"
        if has_helped(expected.tokens, cached_tokens):
            misses.pop(model, None)
            self._owner.note_verdict(self._key, Verdict(helps=True, said=used))
            return
        self._owner.counts[model].unhelpful_restores += 1
        misses[model] = misses.get(model, 0) + 1
        numbers = f"only {used}"
        if not expected.is_certain and misses[model] < MISSES_MAX:
            log.info("%s: %s, of a prompt that had changed", self._key, numbers)
            return
        why = f"{numbers}; this model's slots are not saved again in this run"
        self._owner.unhelpful[model] = why
        self._owner.note_verdict(self._key, Verdict(helps=False, said=numbers))
        log.warning("%s: %s", self._key, why)
