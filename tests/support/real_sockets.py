"""A server for an ASGI app on real sockets, and clients whose systems take little ahead of them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trustme
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.types import AsgiApp

Tls = trustme.CA | None


def authority(is_tls: bool) -> Tls:
    return trustme.CA() if is_tls else None


@asynccontextmanager
async def served(
    app: AsgiApp,
    limits: ConnectionLimits,
    ca: Tls = None,
    connections: ClientConnections | None = None,
    unix: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """The port of a server for this app, without hypercorn's worker. At the end the connections
    must be over. `unix`: it listens there, and not on a port. `ca`, `context`: over TLS."""
    if connections is None:
        connections = ClientConnections(limits, counted=False)
    worker = WorkerContext(None)
    settings: Config = HttpConfig(limits)
    settings.errorlog = None
    wrapper = ASGIWrapper(app)  # type: ignore[arg-type]

    async def serve(stream: Any) -> None:
        await connections.serve(wrapper, settings, worker, ConnectionState({}), stream)

    async with trio.open_nursery() as nursery:
        listeners: list[Any]
        if unix is not None:
            sock = trio.socket.socket(socket.AF_UNIX)
            await sock.bind(str(unix))
            sock.listen()
            listeners, port = [trio.SocketListener(sock)], 0
        else:
            listeners = [*await trio.open_tcp_listeners(0, host="127.0.0.1")]
            port = listeners[0].socket.getsockname()[1]
        if ca is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ca.issue_cert("localhost").configure_cert(context)
        if context is not None:
            listeners = [trio.SSLListener(listeners[0], context, https_compatible=True)]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield port
        with trio.fail_after(10):
            while len(connections):  # noqa: ASYNC110 - known to the server only
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel(reason="the test is over")


async def tiny_window(port: int, ca: Tls = None, unix: Path | None = None) -> Any:
    """A client whose system takes next to nothing ahead of it."""
    sock = trio.socket.socket(socket.AF_INET if unix is None else socket.AF_UNIX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", port) if unix is None else str(unix))
    stream = trio.SocketStream(sock)
    if ca is None:
        return stream
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return trio.SSLStream(
        stream, context, server_hostname="localhost", https_compatible=True
    )  # fmt: skip
