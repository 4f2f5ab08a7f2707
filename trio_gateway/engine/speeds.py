"""Speeds: how fast one engine reads and writes, as its answers tell."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.scheduling.forecast import has_moved, mean

TOKENS_MIN = 8  # an answer of fewer says little
SEEN_MIN_S = 0.1  # an answer that came in less was there before it was sent
TOLD_AFTER = 50  # answers


class Speeds:
    """In tokens a second; None until an answer told. `tell` is called once one of them is news, and
    now and then for what else was learned: whoever is told wakes up for it, which costs more than
    a tenth of what a small request does."""

    __slots__ = ("_told", "_untold", "prompt", "speed", "tell")

    def __init__(self) -> None:
        self.prompt: float | None = None
        self.speed: float | None = None
        self.tell: Callable[[], None] | None = None
        self._told: tuple[float | None, float | None] = (None, None)
        self._untold = 0  # answers

    def note(self, usage: Usage, begun_at: float | None) -> None:
        """An answer is complete. `begun_at`: when its first piece came, if that was seen."""
        prompt, tokens = usage.speed, usage.completion_tokens
        self._untold += 1
        if prompt is None and tokens < TOKENS_MIN and self._untold < TOLD_AFTER:
            return  # it is too short to say anything
        if prompt is not None:
            self.prompt = mean(self.prompt, prompt)
        if tokens >= TOKENS_MIN:
            if usage.made_ms:
                self.speed = mean(self.speed, tokens / usage.made_ms * 1000)
            elif begun_at is not None and (took_s := trio.current_time() - begun_at) > SEEN_MIN_S:
                self.speed = mean(self.speed, tokens / took_s)
        if self.tell is not None and (self._untold >= TOLD_AFTER or self._is_news):
            self._told, self._untold = (self.prompt, self.speed), 0
            self.tell()

    @property
    def _is_news(self) -> bool:
        prompt, speed = self._told
        return has_moved(self.prompt, prompt) or has_moved(self.speed, speed)
