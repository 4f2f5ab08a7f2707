"""`install()`: all that is changed in hypercorn, in one place. Importing this changes nothing.

hypercorn looks these names up when it begins to serve, which under its own command is after the
start of the ASGI lifespan. So what serves calls `install` before: `GatewayServer.run`, and
`HypercornApp` in its lifespan.
"""

from __future__ import annotations

import hypercorn.protocol
import hypercorn.protocol.h11
import hypercorn.trio.run

from trio_gateway.server.http.limits import CountedTCPServer, LimitedH11Protocol
from trio_gateway.server.http.websocket_stream import TellingWSStream


def install() -> None:
    """Let hypercorn's trio worker use our connection, HTTP/1 protocol and WebSocket. More than once
    is the same as once."""
    vars(hypercorn.trio.run)["TCPServer"] = CountedTCPServer
    vars(hypercorn.protocol)["H11Protocol"] = LimitedH11Protocol
    vars(hypercorn.protocol.h11)["WSStream"] = TellingWSStream
