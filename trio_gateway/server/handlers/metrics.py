"""MetricsHandler: `GET /metrics`, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_gateway.engine.others import Others
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.metrics.gateway_metrics import GatewayMetrics
from trio_gateway.server.metrics.parts import Parts
from trio_gateway.server.relay.answer import Answer

if TYPE_CHECKING:
    from trio_gateway.server.metrics.exposition import Exposition


class MetricsHandler:
    def __init__(self, parts: Parts, others: Others | None, queue_timeout_s: float) -> None:
        self._others = others
        self._metrics = GatewayMetrics(parts, queue_timeout_s)
        self._exposition: Exposition | None = None  # until the first scrape

    def expect(self, queue_timeout_s: float) -> None:
        """It has another value from now on."""
        self._metrics.queue_timeout_s = queue_timeout_s

    async def handle_metrics(self, endpoint: Endpoint, call: Call) -> Answer:
        """In OpenMetrics' or in Prometheus' own format, as the client asks."""
        if self._others is not None:
            self._metrics.others = await self._others.now()
        accepted = ", ".join(call.header_values(b"accept"))
        if self._exposition is None:
            # Imported here: prometheus-client takes 0.4 MB, and 14 ms.
            from trio_gateway.server.metrics.exposition import Exposition

            self._exposition = Exposition(self._metrics)
        body, content_type = await self._exposition.encoded(accepted)
        return Answer(200, [(b"content-type", content_type.encode())], body)
