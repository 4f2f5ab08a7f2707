"""`install()`: what is changed in hypercorn, in one place. Importing this changes nothing.

hypercorn looks up its connection's class when it begins to serve, which under its own command is
after the start of the ASGI lifespan. So what serves calls `install` before: `GatewayServer.run`,
and `HypercornApp` in its lifespan.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import hypercorn.trio.run
import trio
from hypercorn.utils import ShutdownError, raise_shutdown

from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.places import AcceptLog
from trio_gateway.tasks import first_of

_ACCEPTING = "trio.serve_listeners"


def install(connections: ClientConnections, stop: trio.Event | None = None) -> None:
    """Let hypercorn's trio worker hand its connections to these. The last call counts.

    Args:
        stop: shuts the worker down when it is set. By itself it knows its parent's word or, without
            a parent (`-w 0`), only a KeyboardInterrupt.
    """
    accepting = logging.getLogger(_ACCEPTING)
    for before in [f for f in accepting.filters if isinstance(f, AcceptLog)]:
        accepting.removeFilter(before)
    accepting.addFilter(AcceptLog())
    worker = vars(hypercorn.trio.run)
    worker["TCPServer"] = connections.serve
    worker["raise_shutdown"] = raise_shutdown if stop is None else partial(_shutdown, stop)


async def _shutdown(stop: trio.Event, told: Callable[[], Awaitable[None]]) -> None:
    """In the place of `raise_shutdown`, which waits for `told` alone."""
    await first_of(told, stop.wait)
    raise ShutdownError
