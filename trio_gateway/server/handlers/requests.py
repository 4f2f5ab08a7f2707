"""RequestHandler: requests that an engine answers, whatever their API.

A handler's method is a row's `handler` in `api/endpoints.py`. It takes the request apart and puts
the answer together; what is between is the Relay's.
"""

from __future__ import annotations

from quart import Response, request

from trio_gateway.server.api.endpoints import Body, Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_body import parse_request
from trio_gateway.server.handlers.incoming import Incoming
from trio_gateway.server.handlers.responses import respond
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class RequestHandler:
    def __init__(self, incoming: Incoming, preparer: Preparer, relay: Relay) -> None:
        self._incoming, self._preparer, self._relay = incoming, preparer, relay

    async def handle_relayed(self, endpoint: Endpoint) -> Response:
        if endpoint.body is Body.NONE:
            sender = self._incoming.sender(endpoint)
            target = endpoint.engine_path or endpoint.paths[0]
            ask = self._preparer.prepare_any(sender, endpoint, request.args.get("model"), target)
        else:
            data = await self._incoming.read_body()
            self._incoming.begin_dump(endpoint, data)
            parsed = parse_request(data, endpoint)
            ask = await self._preparer.prepare(self._incoming.sender(endpoint), endpoint, parsed)
        return respond(await self._relay.respond(ask))

    async def handle_realtime(self, endpoint: Endpoint) -> Response:
        """One that comes with a WebSocket is WebSocketRelay's."""
        message = f"{endpoint.name} is a WebSocket; connect to it with a WebSocket client"
        upgrade = [("Upgrade", "websocket")]
        raise ApiError(426, message, code="websocket_needed", headers=upgrade)
