"""GatewayMetrics: counts what happens, and tells all numbers that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from trio_gateway.engine.happenings import EngineChanged, Refused
from trio_gateway.server.metrics.engine_tallies import EngineTallies
from trio_gateway.server.metrics.parts import Parts
from trio_gateway.server.metrics.request_tallies import RequestTallies
from trio_gateway.server.records.request_record import RequestRecord

if TYPE_CHECKING:
    from trio_gateway.server.metrics.families import Counted, Measured, Spreading


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
        # Imported here: with the first scrape, as what writes them down.
        from trio_gateway.server.metrics.families import of_engines, of_requests
        from trio_gateway.server.metrics.readings import readings

        yield from of_requests(self.requests)
        yield from of_engines(self.engines, self._parts.manager.overview.backing_off())
        yield from readings(self._parts, self.queue_timeout_s, self.others)
