"""The clock of a run of trio, for those who look at it with each request."""

from __future__ import annotations

from collections.abc import Callable

import trio


def run_clock() -> Callable[[], float]:
    """`trio.current_time`, for this run alone: one call, not the three that go from there to the
    clock. Outside of a run, trio's own."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_clock().current_time
    return trio.current_time
