"""WallClock: moments of trio's clock as Unix time, for those who read them elsewhere."""

from __future__ import annotations

import time

import trio

DRIFT_S = 1.0  # what is set, or slept through, is more


class WallClock:
    """One moment is the same Unix time whenever it is asked for, unless the clock was set."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def unix(self, moment: float) -> float:
        offset = time.time() - trio.current_time()
        if self._offset is None or abs(offset - self._offset) > DRIFT_S:
            self._offset = offset
        return moment + self._offset
