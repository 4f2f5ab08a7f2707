"""AnswerObserver: what looks on while a request is answered, such as its dump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class AnswerObserver(Protocol):
    """Sees an answer as its engine gives it, or the gateway in its place. It changes nothing,
    never waits and never raises. Headers' names are as they are sent."""

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Once; twice if the gateway had to begin before its engine did."""

    def continues(self, piece: bytes) -> None:
        """The next piece of the body, as one read gave it; of an answer that is read whole, all."""

    def completes(self) -> None:
        """All of an engine's answer has come."""
