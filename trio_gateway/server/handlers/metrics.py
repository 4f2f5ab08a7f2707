"""MetricsHandler: `GET /metrics`, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.budget import Budget
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.metrics.gateway_metrics import GatewayMetrics
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.traces.tally import TraceTally


class MetricsHandler:
    """Its registry is its own: what others in this process register is no business of this page."""

    def __init__(
        self,
        manager: EngineManager,
        book: RequestBook,
        budget: Budget,
        queue_timeout_s: float,
        traces: TraceTally,
    ) -> None:
        self._registry = CollectorRegistry()
        self._metrics = GatewayMetrics(manager, book, budget, queue_timeout_s, traces)
        self._registry.register(self._metrics)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def expect(self, queue_timeout_s: float) -> None:
        """It has another value from now on."""
        self._metrics.queue_timeout_s = queue_timeout_s

    async def handle_metrics(self, endpoint: Endpoint, call: Call) -> Answer:
        """In OpenMetrics' or in Prometheus' own format, as the client asks."""
        accepted = ", ".join(call.header_values(b"accept"))
        encode, content_type = choose_encoder(accepted)
        body = encode(self._registry)
        return Answer(200, [(b"content-type", content_type.encode())], body)
