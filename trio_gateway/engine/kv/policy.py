"""What to keep of a KV cache, and what to restore: decisions from plain numbers. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.scheduling.forecast import mean

# Shorter conversations are read again in a moment, and what two prompts share up to here is a
# template and a system prompt.
LEAST_TOKENS = 256
# A restore has helped if at least this share of what it should have saved was not read again.
HELPFUL_SHARE = 0.5
CONTINUES_SHARE = 0.9  # of a conversation that a prompt goes on with
# An engine whose state cannot go back to any token can go back to this many before a prompt's end.
CHECKPOINT_TOKENS = 4
MISSES_MAX = 2  # restores that did not help, one after the other, before that is a verdict


class Worth(msgspec.Struct, frozen=True):
    """Whether a conversation is kept; `reason` has the numbers."""

    is_worth: bool
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether a restored cache helps; `said`: the numbers that showed it."""

    helps: bool
    said: str


class KvCosts:
    """What was measured of one model: running means, None until there is a first measurement."""

    __slots__ = ("bytes_per_token", "prompt_speed", "restore_speed", "save_speed")

    def __init__(self) -> None:
        self.prompt_speed: float | None = None  # tokens/s
        self.bytes_per_token: float | None = None
        self.save_speed: float | None = None  # bytes/s
        self.restore_speed: float | None = None  # bytes/s

    def note_usage(self, usage: Usage) -> None:
        if (speed := usage.speed) is not None:
            self.prompt_speed = mean(self.prompt_speed, speed)

    def note_save(self, tokens: int, size_bytes: int, took_ms: float) -> None:
        self.bytes_per_token = mean(self.bytes_per_token, size_bytes / max(tokens, 1))
        self.save_speed = mean(self.save_speed, _speed(size_bytes, took_ms))

    def note_restore(self, size_bytes: int, took_ms: float) -> None:
        self.restore_speed = mean(self.restore_speed, _speed(size_bytes, took_ms))

    def reread_s(self, tokens: int) -> float | None:
        """What reading these tokens again would take."""
        return None if self.prompt_speed is None else tokens / self.prompt_speed

    def carry_s(self, tokens: int) -> float | None:
        """What saving and restoring them takes; a restore not yet measured counts as a save."""
        if self.bytes_per_token is None or self.save_speed is None:
            return None
        size = tokens * self.bytes_per_token
        return size / self.save_speed + size / (self.restore_speed or self.save_speed)

    def restore_s(self, size_bytes: int) -> float:
        """What restoring a file takes; 0 until something was measured."""
        speed = self.restore_speed or self.save_speed
        return 0.0 if speed is None else size_bytes / speed

    def worth(self, tokens: int) -> Worth:
        """Whether these tokens are to be saved."""
        if tokens < LEAST_TOKENS:
            return Worth(False, f"{tokens} tokens are fewer than {LEAST_TOKENS}")
        reread_s, carry_s = self.reread_s(tokens), self.carry_s(tokens)
        if reread_s is None or carry_s is None:
            return Worth(True, "its cost has not been measured yet")
        numbers = f"reading again: {reread_s:.2f} s, save and restore: {carry_s:.2f} s"
        return Worth(carry_s < reread_s, numbers)


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with. A few ms for 100,000: slices are compared, not tokens."""
    if not (isinstance(a, array) and isinstance(b, array)):
        a, b = list(a), list(b)  # an array never equals a list
    same, differs = 0, min(len(a), len(b))
    if a[:differs] == b[:differs]:
        return differs
    # Invariant: equal below `same`, and the first difference lies below `differs`.
    while differs - same > 1:
        middle = (same + differs) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def in_order(
    saved: Mapping[str, Sequence[int] | None],
    prompts_for: Callable[[str], Sequence[Sequence[int]]],
) -> list[str]:
    """The names of saved conversations, the one to restore first first.

    First those that continue in a waiting prompt, the longest shared prefix first; the rest in the
    order given, the most recently used first.

    Args:
        saved: by name, the ids of its tokens, None if they are not known.
        prompts_for: by name, the waiting prompts that may continue it.
    """
    return sorted(saved, key=lambda name: -_longest_shared(saved[name], prompts_for(name)))


def best_continued(
    saved: Mapping[str, Sequence[int] | None], prompt: Sequence[int], held: Sequence[int]
) -> str | None:
    """The name of the saved conversation that the prompt continues furthest; None if none has more
    of it than what the slot holds, or too little to be worth it."""
    known = {name: shared_prefix(ids, prompt) for name, ids in saved.items() if ids is not None}
    best = max(known, key=known.__getitem__, default=None)
    if best is None or known[best] < max(LEAST_TOKENS, shared_prefix(held, prompt) + 1):
        return None
    return best


class Expected(NamedTuple):
    """A prompt, and how many tokens of it a restore should spare. `is_certain`: an engine that kept
    the conversation would have found them; otherwise it may have had to read them as well."""

    ticket: int
    tokens: int
    is_certain: bool


def next_of(
    ids: Sequence[int] | None,
    tokens: int,
    prompt_tokens: int | None,
    prompts: Mapping[int, Sequence[int]],
) -> Expected | None:
    """Which of these prompts goes on with a conversation of so many tokens. `prompt_tokens`: of its
    last turn; None: not known. What only begins alike may be read again for good reasons."""
    all_read = (tokens if prompt_tokens is None else prompt_tokens) - CHECKPOINT_TOKENS
    for ticket, prompt in prompts.items():
        shared = shared_prefix(ids or (), prompt)
        if shared >= min(all_read, CONTINUES_SHARE * tokens):
            return Expected(ticket, shared, shared >= all_read)
    return None


def is_wanted(ids: Sequence[int] | None, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether a waiting prompt continues a saved conversation of these tokens."""
    return _longest_shared(ids, prompts) > 0


def _longest_shared(ids: Sequence[int] | None, prompts: Sequence[Sequence[int]]) -> int:
    if ids is None:
        return 0
    longest = max((shared_prefix(ids, prompt) for prompt in prompts), default=0)
    return longest if longest >= LEAST_TOKENS else 0


def is_continued(held: Sequence[int], prompt: Sequence[int]) -> bool:
    """Whether a prompt goes on with the conversation whose tokens a slot holds."""
    return not held or 2 * shared_prefix(held, prompt) >= len(held)


def has_helped(expected_tokens: int, cached_tokens: int) -> bool:
    """Whether a restore did for its first prompt what the shared prefix promised."""
    return cached_tokens >= HELPFUL_SHARE * expected_tokens


def _speed(size_bytes: int, took_ms: float) -> float:
    return size_bytes / max(took_ms, 0.1) * 1000
