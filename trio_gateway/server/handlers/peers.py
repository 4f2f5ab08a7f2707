"""PeersHandler: `/gateway/peers`, the other gateways whose models are offered here."""

from __future__ import annotations

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.fleet.peers import Peers
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer


class PeersHandler:
    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def handle_peers(self, endpoint: Endpoint, call: Call) -> Answer:
        return json_answer({"peers": self._peers.rows()})
