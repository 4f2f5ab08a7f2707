"""How a stream that has to wait says so: what a configuration sets and a client asks for."""

from __future__ import annotations

import enum


class LoadingState(enum.Enum):
    """Whether a stream says as thoughts of the model what it waits for."""

    NONE = "none"
    REASONING = "reasoning"


class KeepaliveStyle(enum.Enum):
    """`COMMENT`: lines that clients skip, and that say what is waited for. `DATA`: events without
    content of the API that was asked, for clients and proxies that wait for one. `REASONING`: what
    is waited for, as thoughts of the model, where the API has a place for those."""

    COMMENT = "comment"
    DATA = "data"
    REASONING = "reasoning"

    @classmethod
    def from_word(cls, word: str) -> KeepaliveStyle | None:
        """The style with exactly this word; None if there is none."""
        return next((known for known in cls if known.value == word), None)
