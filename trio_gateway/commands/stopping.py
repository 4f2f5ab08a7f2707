"""What a signal does to a command that runs until then: it leaves the loop, and tidies up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trio_gateway.stop_signals import StopSignals
from trio_gateway.tasks import beside


class _Ends:
    """`StopSignals` tells it. Any signal is enough."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def begin_shutdown(self, why: str) -> None:
        self._scope.cancel(reason=why)

    def end_now(self, why: str) -> None:
        self._scope.cancel(reason=why)


async def until_stopped(signals: StopSignals, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work until it ends, or a signal comes."""
    signals.attach()
    with trio.CancelScope() as scope:
        async with beside(partial(signals.watch, _Ends(scope))):
            await work()
