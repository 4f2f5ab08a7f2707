"""How urgent a request is: what an API key has, a client asks for and the scheduler goes by."""

from __future__ import annotations

import enum


class Priority(enum.IntEnum):
    """What a client asks for with `X-Gateway-Priority`; the smaller goes first."""

    INTERACTIVE = 0
    BATCH = 1

    @property
    def word(self) -> str:
        """As configurations and headers write it: `"interactive"`."""
        return _WORDS[self]

    @classmethod
    def from_word(cls, word: str) -> Priority | None:
        """The priority with exactly this word; None if there is none."""
        return next((known for known in cls if known.word == word), None)


_WORDS = tuple(known.name.lower() for known in Priority)
