"""Speeds: how fast one engine reads and writes, as its answers tell."""

from __future__ import annotations

from collections.abc import Callable

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.scheduling.forecast import mean

TOKENS_MIN = 8  # an answer of fewer says little
SEEN_MIN_S = 0.1  # an answer that came in less was there before it was sent


class Speeds:
    """In tokens a second; None until an answer told. `tell` is called after each that did."""

    __slots__ = ("prompt", "speed", "tell")

    def __init__(self) -> None:
        self.prompt: float | None = None
        self.speed: float | None = None
        self.tell: Callable[[], None] | None = None

    def note(self, usage: Usage, begun_at: float | None, now: float) -> None:
        """`begun_at`: when the first piece of the answer came, if that was seen; `now`: the time
        of the last."""
        if (prompt := usage.speed) is not None:
            self.prompt = mean(self.prompt, prompt)
        tokens = usage.completion_tokens
        if tokens >= TOKENS_MIN:
            if usage.made_ms:
                self.speed = mean(self.speed, tokens / usage.made_ms * 1000)
            elif begun_at is not None and now - begun_at > SEEN_MIN_S:
                self.speed = mean(self.speed, tokens / (now - begun_at))
        if self.tell is not None:
            self.tell()
