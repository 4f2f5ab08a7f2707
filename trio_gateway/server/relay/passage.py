"""What goes to an engine with a request, and what more if somebody else runs it. Pure."""

from __future__ import annotations

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.hops import VIA
from trio_gateway.engine.http.exchange import Header
from trio_gateway.server.relay.ask import Sender


def headers_to(engine: EngineClient, sender: Sender) -> list[Header]:
    """Of a request of this sender, as they are given to the engine's client."""
    hops = sender.state.hops
    if not (hops and engine.is_remote):
        return sender.headers
    return [*sender.headers, (VIA, hops)]
