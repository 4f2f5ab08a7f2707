"""RequestHandler: requests that an engine answers, whatever their API.

A handler's method is a row's `handler` in `api/endpoints.py`. It takes the request apart and puts
the answer together; what is between is the Relay's.
"""

from __future__ import annotations

from trio_gateway.server.api.endpoints import Body, Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_body import parse_request
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class RequestHandler:
    def __init__(self, preparer: Preparer, relay: Relay) -> None:
        self._preparer, self._relay = preparer, relay

    async def handle_relayed(self, endpoint: Endpoint, call: Call) -> Answer:
        if endpoint.body is Body.NONE:
            sender = call.sender(endpoint)
            target = endpoint.engine_path or endpoint.paths[0]
            ask = self._preparer.prepare_any(sender, endpoint, call.query("model"), target)
        else:
            data = await call.read_body()
            call.begin_dump(endpoint, data)
            parsed = parse_request(data, endpoint)
            ask = await self._preparer.prepare(call.sender(endpoint), endpoint, parsed)
        return await self._relay.respond(ask)

    async def handle_realtime(self, endpoint: Endpoint, call: Call) -> Answer:
        """One that comes with a WebSocket is WebSocketRelay's."""
        message = f"{endpoint.name} is a WebSocket; connect to it with a WebSocket client"
        upgrade = [("Upgrade", "websocket")]
        raise ApiError(426, message, code="websocket_needed", headers=upgrade)
