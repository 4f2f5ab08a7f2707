"""Tracing: spans go to the collector of the configuration that is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_gateway.bus import Bus
from trio_gateway.config.missing import otel
from trio_gateway.config.schema import TracesConfig
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.traces.tally import TraceTally

if TYPE_CHECKING:
    from trio_gateway.server.traces.traces import Traces


class Tracing:
    """`run` in a task."""

    def __init__(self, bus: Bus, book: RequestBook, config: TracesConfig | None) -> None:
        self.tally = TraceTally()
        self._bus, self._book, self._config = bus, book, config
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._traces = self._made()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            self._start()
            task_status.started()
            await trio.sleep_forever()

    def take_over(self, config: TracesConfig | None) -> None:
        """For requests that come from now on; what is noted still goes where it was to go."""
        if config == self._config:
            return
        self._config = config
        self._scope.cancel(reason="the configuration has another collector")
        self._scope = trio.CancelScope()
        self._traces = self._made()
        self._start()

    def _made(self) -> Traces | None:
        """None: there is no collector; or nothing to send with, of which `missing` tells."""
        made = None
        if self._config is not None and otel() is None:
            # Imported here: what it sends with, and what it loads for that, is an extra.
            from trio_gateway.server.traces.traces import Traces

            made = Traces(self._bus, self._config, self.tally)
        self._book.sample(None if made is None else made.sampler)
        return made

    def _start(self) -> None:
        if self._traces is not None and self._nursery is not None:
            self._nursery.start_soon(self._send, self._traces, self._scope)

    async def _send(self, traces: Traces, scope: trio.CancelScope) -> None:
        with scope:
            await traces.run()
