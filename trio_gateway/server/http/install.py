"""`install()`: what is changed in hypercorn, in one place. Importing this changes nothing.

hypercorn looks up its connection's class when it begins to serve, which under its own command is
after the start of the ASGI lifespan. So what serves calls `install` before: `GatewayServer.run`,
and `HypercornApp` in its lifespan.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from ssl import SSLContext

import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.utils import ShutdownError, raise_shutdown

from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.places import AcceptLog
from trio_gateway.tasks import first_of

log = logging.getLogger(__name__)

_ACCEPTING = "trio.serve_listeners"
_ssl_context_of = Config.create_ssl_context


def install(
    connections: ClientConnections,
    stop: trio.Event | None = None,
    listening: trio.Event | None = None,
) -> None:
    """Let hypercorn's trio worker hand its connections to these. The last call counts.

    Args:
        stop: shuts the worker down when it is set. By itself it knows its parent's word or, without
            a parent (`-w 0`), only a KeyboardInterrupt.
        listening: is set once the worker takes connections.
    """
    accepting = logging.getLogger(_ACCEPTING)
    for before in [f for f in accepting.filters if isinstance(f, AcceptLog)]:
        accepting.removeFilter(before)
    accepting.addFilter(AcceptLog())
    worker = vars(hypercorn.trio.run)
    worker["TCPServer"] = connections.serve
    worker["UDPServer"] = _NoQuic
    Config.create_ssl_context = _http1_context  # type: ignore[method-assign,assignment]
    worker["raise_shutdown"] = (
        raise_shutdown if stop is None else partial(_shutdown, stop, listening)
    )


def _http1_context(config: Config) -> SSLContext | None:
    """As hypercorn makes it, but for what it offers: a client that is told of h2 speaks that."""
    context = _ssl_context_of(config)
    if context is not None:
        context.set_alpn_protocols(["http/1.1"])
    return context


class _NoQuic:
    """In the place of hypercorn's UDPServer, for which none of our limits would hold."""

    def __init__(self, *_: object) -> None:
        pass

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        log.warning("quic_bind has no effect: HTTP/1.1 is all that is spoken")
        task_status.started()


async def _shutdown(
    stop: trio.Event, listening: trio.Event | None, told: Callable[[], Awaitable[None]]
) -> None:
    """In the place of `raise_shutdown`, which waits for `told` alone, from when it listens."""
    if listening is not None:
        listening.set()
    await first_of(told, stop.wait)
    raise ShutdownError
