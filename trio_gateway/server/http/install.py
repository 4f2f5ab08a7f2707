"""`install()`: what is changed in hypercorn, in one place. Importing this changes nothing.

hypercorn looks up its connection's class when it begins to serve, which under its own command is
after the start of the ASGI lifespan. So what serves calls `install` before: `GatewayServer.run`,
and `HypercornApp` in its lifespan.
"""

from __future__ import annotations

import logging

import hypercorn.trio.run

from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.places import AcceptLog

_ACCEPTING = "trio.serve_listeners"


def install(connections: ClientConnections) -> None:
    """Let hypercorn's trio worker hand its connections to these. The last call counts."""
    accepting = logging.getLogger(_ACCEPTING)
    for before in [f for f in accepting.filters if isinstance(f, AcceptLog)]:
        accepting.removeFilter(before)
    accepting.addFilter(AcceptLog())
    vars(hypercorn.trio.run)["TCPServer"] = connections.serve
