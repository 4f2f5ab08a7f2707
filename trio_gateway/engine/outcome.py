"""How an engine's life ends: StartFailed before it was ready, and an Outcome afterwards."""

from __future__ import annotations

import enum

from trio_gateway.engine.process.process import Process, last_words, output_of


class StartFailed(Exception):
    """The engine did not start; the text and its last lines are for the client. `unavailable`: for
    want of what it runs on, which may be there in a while."""

    def __init__(
        self,
        reason: str,
        output: tuple[str, ...] = (),
        *,
        timed_out: bool = False,
        unavailable: bool = False,
    ) -> None:
        super().__init__(reason)
        self.output, self.timed_out, self.unavailable = output, timed_out, unavailable


def ended_early(process: Process) -> StartFailed:
    reason = f"the engine {process.status} while starting{last_words(process)}"
    return StartFailed(reason, output_of(process))


def not_ready_within(limit_s: float, last: str, process: Process) -> StartFailed:
    """`last`: what its health endpoint said."""
    reason = (
        f"the engine was not ready within {limit_s:g} s (engine_startup_timeout); its "
        f"health endpoint: {last}{last_words(process)}"
    )
    return StartFailed(reason, output_of(process), timed_out=True)


class Outcome(enum.Enum):
    """Why a process no longer serves."""

    STOP = "its stop was requested"
    LOST = "it ended by itself, or must be given up"
    RESTORE_FAILED = "it did not survive the restore of a KV cache"
