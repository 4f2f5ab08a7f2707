"""OperationsHandler: what the gateway says about itself: health, queue, engines, explanations."""

from __future__ import annotations

from quart import Response, request

from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.explanation import explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.api.endpoints import Endpoint
from trio_gateway.server.api.request_body import nested_too_deeply, parse_request_to
from trio_gateway.server.handlers.incoming import Incoming
from trio_gateway.server.handlers.responses import respond_json
from trio_gateway.server.openapi import document as openapi
from trio_gateway.server.relay.prepare import Preparer


class OperationsHandler:
    def __init__(
        self,
        incoming: Incoming,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        preparer: Preparer,
    ) -> None:
        self._incoming, self._manager, self._selector = incoming, manager, selector
        self._counter, self._preparer = counter, preparer

    async def handle_health(self, endpoint: Endpoint) -> Response:
        return respond_json({"status": "ok"})

    async def handle_openapi(self, endpoint: Endpoint) -> Response:
        return Response(openapi.encoded(), content_type="application/json")

    async def handle_queue(self, endpoint: Endpoint) -> Response:
        return respond_json({"tickets": self._manager.overview.tickets()})

    async def handle_engines(self, endpoint: Endpoint) -> Response:
        kv = self._manager.kv.totals()
        return respond_json({"engines": self._manager.overview.engines(), "kv_carryover": kv})

    async def handle_explain(self, endpoint: Endpoint) -> Response:
        """What would happen to the request in the body. No engine is started or asked to work."""
        data = await self._incoming.read_body()
        meant, parsed = parse_request_to(request.args.get("endpoint"), data)
        wanted, form = self._preparer.counted(parsed, meant, self._incoming.permissions)
        try:
            found = await explain(
                self._selector, self._counter, self._manager.overview, self._manager.kv,
                wanted, form,
            )  # fmt: skip
        except RecursionError:
            raise nested_too_deeply() from None
        return respond_json(found)
