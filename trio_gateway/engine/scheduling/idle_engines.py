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

    One that is used again keeps its place until somebody comes upon it there, or it is idle again:
    most requests are over before anybody asks.
    """

    def __init__(self, variants: Variants) -> None:
        self._variants = variants
        self._by_timeout: dict[float, dict[int, EngineView]] = {}  # in the order of their last use

    def forget(self, engine: EngineView) -> None:
        for engines in self._by_timeout.values():
            engines.pop(engine.id, None)

    def note(self, engine: EngineView) -> float:
        """It was used, or is in another state than before. When it will have been idle for too
        long; infinite: it is not idle."""
        if not _is_idle(engine):
            return math.inf
        idle_s = self._variants.idle_timeout_s(engine.facts)
        engines = self._by_timeout.setdefault(idle_s, {})
        engines.pop(engine.id, None)
        engines[engine.id] = engine
        return engine.used_at + idle_s

    def note_timeouts(self, engines: Iterable[EngineView]) -> None:
        """The timeouts are others; `engines` are all that there are."""
        self._by_timeout = {}
        for engine in sorted(engines, key=lambda engine: engine.used_at):
            self.note(engine)

    def next_due(self) -> float:
        """When the next of them is idle for too long; infinite: none is idle."""
        due = math.inf
        for idle_s, engines in self._by_timeout.items():
            while engines:
                first = next(iter(engines.values()))
                if _is_idle(first):
                    due = min(due, first.used_at + idle_s)
                    break
                del engines[first.id]
        return due

    def due(self, now: float) -> list[tuple[EngineView, float]]:
        """Those that are idle for too long, and their timeouts, in the order of their start."""
        found = []
        for idle_s, engines in self._by_timeout.items():
            for engine in engines.values():
                if _is_idle(engine):
                    if engine.used_at + idle_s > now:
                        break
                    found.append((engine, idle_s))
        return sorted(found, key=lambda each: each[0].id)


def _is_idle(engine: EngineView) -> bool:
    return engine.state is EngineState.READY and not engine.leases
