"""IdleEngines: the engines that nobody uses, and when the next of them has to go. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.variants import Variants


class IdleEngines:
    """In a heap, by when they would have been idle for too long as they were put in. A request
    makes that later, and changes nothing here: the time of an engine is looked at again once it is
    the first. So a request costs the same, however many engines run.
    """

    def __init__(self, variants: Variants) -> None:
        self._variants = variants
        self._heap: list[tuple[float, int]] = []
        self._listed: dict[int, EngineView] = {}  # those in the heap, once each

    def note(self, engine: EngineView) -> float:
        """It is idle, or in another state than before. When it will have been idle for too long, if
        that was not to be expected; infinite otherwise."""
        if engine.id in self._listed or (due := self._due(engine)) == math.inf:
            return math.inf
        self._listed[engine.id] = engine
        heapq.heappush(self._heap, (due, engine.id))
        return due

    def forget(self, engine: EngineView) -> None:
        """It is gone."""
        if self._listed.pop(engine.id, None) is not None:
            self._heap = [entry for entry in self._heap if entry[1] != engine.id]
            heapq.heapify(self._heap)

    def note_timeouts(self, engines: Iterable[EngineView]) -> None:
        """The timeouts are others; `engines` are all that there are."""
        self._heap, self._listed = [], {}
        for engine in engines:
            self.note(engine)

    def next_due(self) -> float:
        """When the next of them is idle for too long; infinite: none is idle."""
        heap = self._heap
        while heap:
            at, number = heap[0]
            due = self._due(self._listed[number])
            if due <= at:
                return due
            if due == math.inf:
                heapq.heappop(heap)
                del self._listed[number]
            else:
                heapq.heapreplace(heap, (due, number))
        return math.inf

    def due(self, now: float) -> list[tuple[EngineView, float]]:
        """Those that are idle for too long, and their timeouts, in the order of their start."""
        found = []
        while self.next_due() <= now:
            _, number = heapq.heappop(self._heap)
            engine = self._listed.pop(number)
            found.append((engine, self._variants.idle_timeout_s(engine.facts)))
        return sorted(found, key=lambda each: each[0].id)

    def _due(self, engine: EngineView) -> float:
        if engine.state is not EngineState.READY or engine.leases:
            return math.inf
        return engine.used_at + self._variants.idle_timeout_s(engine.facts)
