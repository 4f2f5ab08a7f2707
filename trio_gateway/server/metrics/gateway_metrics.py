"""GatewayMetrics: counts what happens, and tells all numbers that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trio_gateway.engine.happenings import EngineChanged, Refused
from trio_gateway.server.metrics.engine_tallies import EngineTallies
from trio_gateway.server.metrics.families import (
    Counted,
    Measured,
    Spreading,
    of_engines,
    of_requests,
)
from trio_gateway.server.metrics.readings import Parts, readings
from trio_gateway.server.metrics.request_tallies import RequestTallies
from trio_gateway.server.records.request_record import RequestRecord


class GatewayMetrics:
    """It counts from when it is made. `collect` is to run in the gateway's own thread, where
    nothing changes meanwhile. `others`: by pool, the bytes that other programs hold."""

    def __init__(self, parts: Parts, queue_timeout_s: float) -> None:
        self.queue_timeout_s = queue_timeout_s
        self.others: Mapping[str, int | None] = {}
        self._parts = parts
        self.requests, self.engines = RequestTallies(), EngineTallies()
        bus = parts.manager.bus
        bus.listen(RequestRecord, self.requests.note)
        bus.listen(EngineChanged, self.engines.note)
        bus.listen(Refused, self.engines.note_refused)

    def collect(self) -> Iterator[Counted | Spreading | Measured]:
        yield from of_requests(self.requests)
        yield from of_engines(self.engines, self._parts.manager.overview.backing_off())
        yield from readings(self._parts, self.queue_timeout_s, self.others)
