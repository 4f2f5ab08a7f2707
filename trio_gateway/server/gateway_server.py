"""GatewayServer: listeners, and the order of shutdown."""

from __future__ import annotations

import logging

import trio
from hypercorn.trio import serve

from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.schema import ListenAddress
from trio_gateway.engine.process.open_files import raise_limit
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.install import install
from trio_gateway.server.http.listeners import BACKLOG, Listeners, address_of, bound
from trio_gateway.server.http.tls import Certificate
from trio_gateway.server.relay.websocket import MESSAGE_MAX_BYTES

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
# After the grace a stream still has to send its error event, and a connection to close.
LAST_WORDS_S = 0.5


class GatewayServer:
    """Serves a gateway on the addresses of its configuration until it is told to stop."""

    def __init__(self, gateway: Gateway) -> None:
        raise_limit()  # what follows counts with it
        self._gateway = gateway
        self._connections = ClientConnections(
            gateway.config.server.limits, max_buffered_bytes=gateway.budget.memory.limit
        )
        self._served = trio.Event()
        self._serve_scope = trio.CancelScope()

    async def run(
        self,
        *,
        task_status: trio.TaskStatus[list[ListenAddress | UnixAddress]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until `begin_shutdown`, then end in order.

        `started` with the addresses; with none if it was told to stop before it listened.

        Raises:
            ListenError: before anything was started.
        """
        install(self._connections)
        server = self._gateway.config.server
        certificate = None if server.tls is None else Certificate(server.tls)
        with bound(server.listen, server.listen_unix) as sockets:
            addresses = list[ListenAddress | UnixAddress](map(address_of, sockets.tcp))
            addresses += server.listen_unix
            async with trio.open_nursery() as nursery:
                await nursery.start(self._gateway.run)
                if certificate is not None:
                    nursery.start_soon(certificate.watch)
                nursery.start_soon(self._connections.watch, self._gateway.begin_shutdown)
                if self._gateway.closing.is_set():
                    task_status.started([])
                else:
                    await nursery.start(self._serve, sockets, certificate)
                    task_status.started(addresses)
                    await self._served.wait()
                await self._gateway.manager.stopped.wait()
                nursery.cancel_scope.cancel(reason="everything is stopped")

    def begin_shutdown(self, why: str) -> None:
        """The listeners close, tickets are rejected, streams have `shutdown_grace`, engines stop
        as they get free."""
        grace_s = self._gateway.shutdown_grace_s
        log.info("%s: stopping; streams have %g s to finish", why, grace_s)
        self._gateway.begin_shutdown()

    def end_now(self, why: str) -> None:
        """No grace: streams end, engines are killed."""
        log.info("%s: stopping at once", why)
        self._gateway.end_now(why)
        self._serve_scope.deadline = trio.current_time() + LAST_WORDS_S

    async def _serve(
        self,
        sockets: Listeners,
        certificate: Certificate | None,
        *,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        try:
            with self._serve_scope:
                await serve(
                    self._gateway,  # type: ignore[arg-type]
                    self._hypercorn_config(sockets, certificate),
                    shutdown_trigger=self._gateway.closing.wait,
                    task_status=task_status,
                )
        finally:
            self._served.set()

    def _hypercorn_config(self, sockets: Listeners, certificate: Certificate | None) -> HttpConfig:
        server = self._gateway.config.server
        if certificate is None:
            config = HttpConfig(server.limits, plain=[*sockets.tcp, *sockets.unix])
        else:  # a socket file is on this machine: no network to listen in on
            config = HttpConfig(server.limits, sockets.unix, sockets.tcp, certificate.context)
        config.backlog = BACKLOG
        config.keep_alive_timeout = KEEP_ALIVE_S
        config.graceful_timeout = server.shutdown_grace_s + LAST_WORDS_S
        config.include_server_header = False
        config.websocket_max_message_size = MESSAGE_MAX_BYTES
        config.accesslog = None
        http_log = logging.getLogger("trio_gateway.http")
        http_log.setLevel(logging.WARNING)  # it announces the sockets a second time
        config.errorlog = http_log
        return config
