"""BeforeSleep: an engine with `--sleep-idle-seconds` is saved before it sleeps and forgets.

Measured: a llama-server that falls asleep frees its slots, and a look at them wakes it, which loads
the model for nothing. So what it held is saved before, and not looked for at its stop.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from trio_gateway.engine.http.connections import Connections

LEAD_S = 10.0  # before it sleeps, or half of the time until then


class BeforeSleep:
    """`requests`: those of the engine. `sleep_s`: it sleeps once it has had none for so long."""

    def __init__(self, requests: Connections, sleep_s: float) -> None:
        self._requests, self._sleep_s = requests, sleep_s
        self._wait_s = sleep_s - min(LEAD_S, sleep_s / 2)
        self._began_at = trio.current_time()
        self._saved_at = -math.inf  # the end of the last request before it was saved

    async def run(self, save: Callable[[], Awaitable[None]]) -> None:
        """Save once in each break that is long enough. Never returns."""
        while True:
            quiet_since = self._quiet_since
            if quiet_since is None or quiet_since <= self._saved_at:
                await trio.sleep(self._wait_s)
            elif trio.current_time() < (due := quiet_since + self._wait_s):
                await trio.sleep_until(due)
            else:
                await save()
                self._saved_at = quiet_since

    @property
    def _quiet_since(self) -> float | None:
        since = self._requests.quiet_since
        return None if since is None else max(since, self._began_at)

    @property
    def holds_nothing_new(self) -> bool:
        """What its slots held was saved, or is gone."""
        quiet_since = self._quiet_since
        if quiet_since is None:
            return False
        sleeps = trio.current_time() >= quiet_since + self._sleep_s
        return sleeps or quiet_since <= self._saved_at
