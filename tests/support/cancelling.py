"""Cancels some work at its first checkpoint, then at its second, …, until it is done before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

STEPS_MAX = 2000


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope as its task, or one below it, begins its n-th step; so what this step waits
    for next is where it ends."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._left, self._scope = steps, scope
        self._tasks: set[trio.lowlevel.Task] = set()

    def watch(self, task: trio.lowlevel.Task) -> None:
        self._tasks.add(task)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._tasks:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel(reason="the test cancels it here")


async def cancel_at_each_step(
    work: Callable[[], Awaitable[object]], check: Callable[[int], None]
) -> int:
    """Do the work again and again, and cancel it one step later each time. `check` is called with
    the number of that step once all is quiet after it; the last time nothing was cancelled. How
    many times that were. Whatever the work raises is raised.
    """
    for steps in range(1, STEPS_MAX):
        scope = trio.CancelScope()
        instrument = _CancelAtStep(steps, scope)

        async def run(
            scope: trio.CancelScope = scope, instrument: _CancelAtStep = instrument
        ) -> None:
            instrument.watch(trio.lowlevel.current_task())
            with scope:
                await work()

        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        await trio.testing.wait_all_tasks_blocked()
        check(steps)
        if not scope.cancel_called:
            return steps
    raise AssertionError(f"it is not done after {STEPS_MAX} steps")
