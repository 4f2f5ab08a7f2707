"""The clock that plays a scheduler: what is due is done in its order, and no time passes between.

The worlds of the tests and the traces of the benchmarks run on it; each says itself what its
clients and engines do.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Protocol


class Timed(Protocol):
    """What wants to be told when a moment has come."""

    def next_deadline(self) -> float | None: ...


class VirtualClock:
    """`grain_s`: deadlines are sums of floats, and a timer that is due in less is due now. With
    0.0 its subject has to be exact."""

    def __init__(self, grain_s: float = 0.0) -> None:
        self.now = 0.0
        self._grain_s = grain_s
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), what))

    def run(
        self, subject: Timed, on_deadline: Callable[[], None], goes_on: Callable[[], bool]
    ) -> None:
        """Until nothing is due on the agenda; or longer, by deadlines alone, while `goes_on`.

        Raises:
            AssertionError: nothing will ever happen any more, or a deadline does not pass.
        """
        while self._agenda or goes_on():
            deadline = subject.next_deadline()
            if deadline is not None and (not self._agenda or deadline <= self._agenda[0][0]):
                assert math.isfinite(deadline), f"nothing will ever happen: {subject!r}"
                assert deadline >= self.now - self._grain_s
                self.now = max(self.now, deadline + self._grain_s)
                on_deadline()
                after = subject.next_deadline()
                assert after is None or after > deadline, "the timer would spin"
            else:
                assert self._agenda, f"nothing will ever happen: {subject!r}"
                self.now, _, what = heapq.heappop(self._agenda)
                what()
