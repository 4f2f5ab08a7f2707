"""Deadlines: when each of many things is due, and which is due next. Pure."""

from __future__ import annotations

import heapq
import math

_SPARE = 64  # entries that hold no more, before the heap is made anew


class Deadlines:
    """By name. A deadline that is moved leaves its old entry in the heap, which is skipped when its
    turn comes: to move one costs the logarithm of how many there are."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, at: float) -> None:
        """Infinite: never."""
        if at == math.inf:
            self._at.pop(name, None)
        elif self._at.get(name) != at:
            self._at[name] = at
            heapq.heappush(self._heap, (at, name))
            if len(self._heap) > 2 * len(self._at) + _SPARE:
                self._heap = [(at, name) for name, at in self._at.items()]
                heapq.heapify(self._heap)

    def next(self) -> float:
        """The earliest of them; infinite: there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def take_due(self, now: float) -> list[str]:
        """Those that are due. They have no deadline from here on."""
        due = []
        while self.next() <= now:
            _, name = heapq.heappop(self._heap)
            del self._at[name]
            due.append(name)
        return due

    def names(self) -> list[str]:
        """Those that have one."""
        return [*self._at]
