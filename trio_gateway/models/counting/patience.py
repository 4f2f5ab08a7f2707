"""Patience: files that cost the helper process too much are left alone for a while. Pure.

The helper answers one question after the other: a template that takes all of its time would keep
the counts of all other models from being made.
"""

from __future__ import annotations

from pathlib import Path

STRIKES = 2  # one may be the fault of a busy machine
BARRED_S = 300.0


class Patience:
    """Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._strikes: dict[Path, list[float]] = {}

    def note(self, file: Path, now: float) -> None:
        """It cost too much, just now."""
        self._strikes[file] = [*self._recent(file, now), now][-STRIKES:]

    def is_lost(self, file: Path, now: float) -> bool:
        """Whether nothing is to be asked about this file now."""
        return len(self._recent(file, now)) == STRIKES

    def _recent(self, file: Path, now: float) -> list[float]:
        return [at for at in self._strikes.get(file, ()) if now - at < BARRED_S]
