"""EngineTallies: what happened to engines until now, in numbers. Pure."""

from __future__ import annotations

import enum
from collections import defaultdict

from trio_gateway.engine.happenings import Change, EngineChanged, Refused
from trio_gateway.engine.scheduling.events import Cause, VariantKey
from trio_gateway.server.metrics.request_tallies import SECONDS
from trio_gateway.server.metrics.tallies import Counts, Labels, Spreads


class SwapReason(enum.Enum):
    """Why an engine could make way. `IDLE`: it had nothing to do. `DRAINED`: requests ran on it,
    and it took no more. `OTHER_SIZE`: for another variant of its own model."""

    IDLE = "idle"
    DRAINED = "drained"
    OTHER_SIZE = "other_size"


class EngineTallies:
    """By model and variant, where nothing else is said."""

    def __init__(self) -> None:
        self.starts: Counts[Labels] = defaultdict(int)
        self.failures: Counts[Labels] = defaultdict(int)  # and "timeout", "start" or "running"
        self.stops: Counts[Labels] = defaultdict(int)  # and why
        self.swaps: Counts[Labels] = defaultdict(int)  # the model that went, that came, and why
        self.drains: Counts[Labels] = defaultdict(int)
        self.resumes: Counts[Labels] = defaultdict(int)
        self.kills: Counts[Labels] = defaultdict(int)
        self.loads = Spreads[Labels](SECONDS)
        self.refused: Counts[Labels] = defaultdict(int)  # model, why
        self._stopping: set[int] = set()
        self._drained: set[VariantKey] = set()  # for a swap

    def note(self, changed: EngineChanged) -> None:
        of_variant = (changed.key.model, changed.key.variant)
        match changed.change:
            case Change.STARTING:
                self.starts[of_variant] += 1
                for gone in changed.evicted:
                    why = self._why(gone, changed.key)
                    self.swaps[gone.model, changed.key.model, why.value] += 1
            case Change.READY if changed.load_s is not None:
                self.loads[of_variant].add([changed.load_s])
            case Change.DRAINING:
                self.drains[of_variant] += 1
                if changed.cause is Cause.SWAP:
                    self._drained.add(changed.key)
            case Change.RESUMED:
                self.resumes[of_variant] += 1
                self._drained.discard(changed.key)
            case Change.STOPPING:
                self._stopping.add(changed.engine)
                self.stops[*of_variant, (changed.cause or Cause.SWAP).value] += 1
            case Change.FAILED:
                self._ended(changed, of_variant, "timeout" if changed.timed_out else "start")
            case Change.GONE:
                self._ended(changed, of_variant, "running")
                if changed.killed:
                    self.kills[of_variant] += 1

    def _ended(self, changed: EngineChanged, of_variant: tuple[str, str], why: str) -> None:
        """A failure, unless its end was asked for."""
        if changed.engine in self._stopping:
            self._stopping.discard(changed.engine)
        else:
            self.failures[*of_variant, why] += 1

    def _why(self, gone: VariantKey, came: VariantKey) -> SwapReason:
        is_drained = gone in self._drained
        self._drained.discard(gone)
        if gone.model == came.model:
            return SwapReason.OTHER_SIZE
        return SwapReason.DRAINED if is_drained else SwapReason.IDLE

    def note_refused(self, refused: Refused) -> None:
        self.refused[refused.model, refused.refusal] += 1
