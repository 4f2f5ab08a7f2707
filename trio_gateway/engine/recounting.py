"""Recounting: the tasks that count requests again, a few of each model at a time."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

import trio

from trio_gateway.engine.lease import LeaseRequest
from trio_gateway.engine.scheduling.events import Recounted

log = logging.getLogger(__name__)

COUNTS_MAX = 4  # of one model at a time: an engine counts in the threads that take its requests


class Recounting:
    """Carries out the scheduler's CountAgain.

    Args:
        report: takes what was found out.
    """

    def __init__(self, report: Callable[[Recounted], None]) -> None:
        self._report = report
        self._turns: defaultdict[str, trio.CapacityLimiter] = defaultdict(
            lambda: trio.CapacityLimiter(COUNTS_MAX)
        )

    def begin(self, request: LeaseRequest, nursery: trio.Nursery) -> None:
        """It ends with the request, at the latest."""
        scope = request.begin_count()
        nursery.start_soon(self._count, request, scope, name=f"count of {request.event.ticket}")

    async def _count(self, request: LeaseRequest, scope: trio.CancelScope) -> None:
        with scope:
            event = Recounted(request.event.ticket, None)
            try:
                async with self._turns[request.event.model]:
                    needs = await request.count_again()
            except Exception as error:  # noqa: BLE001 - it is raised where the request waits
                if request.is_waiting:
                    request.fail(error)
                    return
                # It has its engine, which has the last word.
                log.info("a request of %s, counted again: %s", request.event.model, error)
            else:
                if needs is not None:
                    event = Recounted(request.event.ticket, needs.need, needs.start_need)
            self._report(event)
