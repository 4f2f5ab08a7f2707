"""How long a task keeps the others from their turns."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio


async def longest_wait_s(work: Callable[[], Awaitable[None]]) -> float:
    """How much CPU was spent between two turns of another task, the worst few aside, while it
    runs: those are the collector's."""
    waits = []

    async def look_on() -> None:
        while True:
            before = time.thread_time()
            await trio.lowlevel.checkpoint()
            waits.append(time.thread_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_on)
        await work()
        nursery.cancel_scope.cancel(reason="it is done")
    return sorted(waits)[-4]
