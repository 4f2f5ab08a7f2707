"""AnswerProgress: how far an answer has come, and how long it may still take. Pure."""

from __future__ import annotations

from collections.abc import Sequence

OWN_SPEED_TOKENS = 8  # an answer's own speed is believed from here on


class AnswerProgress:
    """Of one answer. Only its request's task writes to it: what it counts as the answer comes.

    Args:
        prompt: its tokens, counted or bounded.
        limit: tokens that the answer has at most, as far as the request says; None: it goes on to
            the end of its context.
        is_seen: it is streamed, so that its tokens are seen as they come.

    `begun_at`: when its first piece came, if that is seen. `size`: bytes that have come since then;
    `first`: the first of its pieces, `sample`: the newest. `said`: tokens, once it says how many.
    `opening`: events of `first` without a token, and their bytes, once somebody has looked.
    `is_complete`: all of it has come. `is_ended`: the scheduler wants it to end; that one is the
    scheduler's.
    """

    # Until it begins, and of an answer that is not streamed most of it is not set.
    begun_at: float | None = None
    said: int | None = None
    size: int = 0
    first: bytes = b""
    opening: tuple[int, int] | None = None
    sample: Sequence[bytes] = ()
    is_complete: bool = False
    is_ended: bool = False

    def __init__(self, prompt: int, limit: int | None, *, is_seen: bool) -> None:
        self.prompt, self.limit, self.is_seen = prompt, limit, is_seen

    def begin(self, now: float, first: bytes = b"") -> None:
        """Its first piece is there. An engine is asked once more, if the first was lost."""
        self.begun_at, self.said, self.size, self.first = now, None, 0, first
        self.opening = None

    @property
    def tokens(self) -> float:
        """Those that have come: as the answer said, or about as many as events, which mostly have a
        token each. To count events as they come would take a microsecond for each; they are of much
        the same size."""
        if self.said is not None:
            return self.said
        text = b"".join(self.sample)
        events = max(text.count(b"\n\n") + text.count(b"\r\n\r\n"), 1)
        empty, size = self.opening or (0, 0)
        if self.size == len(text):
            return max(events - empty, 0) if text else 0.0
        return (self.size - size) * events / len(text) if text else 0.0

    def limit_in(self, context: int) -> int:
        """Tokens that it has at most in a context of that size."""
        room = max(context - self.prompt, 0)
        return room if self.limit is None else min(self.limit, room)

    def speed(self, now: float) -> float | None:
        """Tokens a second, as far as they were seen; None: too few."""
        if self.begun_at is None or now <= self.begun_at:
            return None
        tokens = self.tokens
        return None if tokens < OWN_SPEED_TOKENS else tokens / (now - self.begun_at)
