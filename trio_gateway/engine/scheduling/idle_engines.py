"""IdleEngines: the engines that nobody uses, and when the next of them has to go. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.variants import Variants


class IdleEngines:
    """By their idle timeout, of which a configuration has few: of those that share one, the engine
    that was used first is the first to go. So a request costs the same, however many engines run.
    """

    def __init__(self, variants: Variants) -> None:
        self._variants = variants
        self._by_timeout: dict[float, dict[int, EngineView]] = {}  # in the order of their last use
        self._timeouts: dict[int, float] = {}  # by engine

    def forget(self, engine: EngineView) -> None:
        if (before := self._timeouts.pop(engine.id, None)) is not None:
            del self._by_timeout[before][engine.id]

    def note(self, engine: EngineView) -> None:
        """It was used, or is in another state than before."""
        if engine.state is not EngineState.READY or engine.leases:
            self.forget(engine)
            return
        idle_s = self._variants.idle_timeout_s(engine.facts)
        if self._timeouts.get(engine.id) != idle_s:  # otherwise it has its place already
            self.forget(engine)
            self._timeouts[engine.id] = idle_s
            self._by_timeout.setdefault(idle_s, {})[engine.id] = engine

    def note_timeouts(self, engines: Iterable[EngineView]) -> None:
        """The timeouts are others; `engines` are all that there are."""
        self._by_timeout, self._timeouts = {}, {}
        for engine in sorted(engines, key=lambda engine: engine.used_at):
            self.note(engine)

    def next_due(self) -> float:
        """When the next of them is idle for too long; infinite: none is idle."""
        due = math.inf
        for idle_s, engines in self._by_timeout.items():
            for engine in engines.values():
                if (at := engine.used_at + idle_s) < due:
                    due = at
                break
        return due

    def due(self, now: float) -> list[tuple[EngineView, float]]:
        """Those that are idle for too long, and their timeouts, in the order of their start."""
        found = []
        for idle_s, engines in self._by_timeout.items():
            for engine in engines.values():
                if engine.used_at + idle_s > now:
                    break
                found.append((engine, idle_s))
        return sorted(found, key=lambda each: each[0].id)
