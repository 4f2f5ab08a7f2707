"""How an engine's life ends: StartFailed before it was ready, and an Outcome afterwards."""

from __future__ import annotations

import enum


class StartFailed(Exception):
    """The engine did not start; the text and its last lines are for the client."""

    def __init__(
        self, reason: str, output: tuple[str, ...] = (), *, timed_out: bool = False
    ) -> None:
        super().__init__(reason)
        self.output, self.timed_out = output, timed_out


class Outcome(enum.Enum):
    """Why a process no longer serves."""

    STOP = "its stop was requested"
    LOST = "it ended by itself, or must be given up"
    RESTORE_FAILED = "it did not survive the restore of a KV cache"
