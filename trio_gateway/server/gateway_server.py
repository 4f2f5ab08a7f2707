"""GatewayServer: listeners, signals, and the order of shutdown."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Sequence

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trio_gateway.app import Gateway
from trio_gateway.config.schema import ListenAddress
from trio_gateway.engine import platform
from trio_gateway.server.websocket_relay import MESSAGE_MAX_BYTES

log = logging.getLogger(__name__)

BACKLOG = 512
KEEP_ALIVE_S = 75.0
KEEP_ALIVE_MAX_REQUESTS = 1_000_000
# After the grace a stream still has to send its error event, and a connection to close.
LAST_WORDS_S = 0.5


class ListenError(Exception):
    """An address cannot be listened on; the message says which, and who has it."""


class GatewayServer:
    """Serves a gateway on the addresses of its configuration until a signal ends it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._served = trio.Event()
        self._serve_scope = trio.CancelScope()

    async def run(
        self, *, task_status: trio.TaskStatus[list[ListenAddress]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run until SIGINT or SIGTERM, then shut down in order; `started` with the addresses.

        First signal: the listeners close, tickets are rejected, streams have `shutdown_grace`,
        engines stop as they get free. Second signal: no grace, engines are killed.

        Raises:
            ListenError: before anything was started.
        """
        sockets = bind_sockets(self._gateway.config.server.listen)
        addresses = [_address_of(sock) for sock in sockets]
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            await nursery.start(self._gateway.run)
            await nursery.start(self._serve, sockets)
            task_status.started(addresses)
            await self._served.wait()
            await self._gateway.manager.stopped.wait()
            nursery.cancel_scope.cancel(reason="everything is stopped")

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*platform.STOP_SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if not self._gateway.closing.is_set():
                    grace_s = self._gateway.config.server.shutdown_grace_s
                    log.info("%s: stopping; streams have %g s to end", name, grace_s)
                    self._gateway.begin_shutdown()
                else:
                    log.info("%s again: ending at once", name)
                    self._gateway.end_now(f"second signal: {name}")
                    self._serve_scope.deadline = trio.current_time() + LAST_WORDS_S

    async def _serve(
        self, sockets: Sequence[socket.socket], *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        try:
            with self._serve_scope:
                await serve(
                    self._gateway,  # type: ignore[arg-type]
                    self._hypercorn_config(sockets),
                    shutdown_trigger=self._gateway.closing.wait,
                    task_status=task_status,
                )
        finally:
            self._served.set()

    def _hypercorn_config(self, sockets: Sequence[socket.socket]) -> Config:
        config = Config()
        config.bind = [f"fd://{sock.detach()}" for sock in sockets]
        config.backlog = BACKLOG
        config.keep_alive_timeout = KEEP_ALIVE_S
        config.keep_alive_max_requests = KEEP_ALIVE_MAX_REQUESTS
        config.graceful_timeout = self._gateway.config.server.shutdown_grace_s + LAST_WORDS_S
        config.include_server_header = False
        config.websocket_max_message_size = MESSAGE_MAX_BYTES
        config.accesslog = None
        http_log = logging.getLogger("trio_gateway.http")
        http_log.setLevel(logging.WARNING)  # it announces the sockets a second time
        config.errorlog = http_log
        return config


def bind_sockets(addresses: Sequence[ListenAddress]) -> list[socket.socket]:
    """A bound socket for each address, or none at all.

    Raises:
        ListenError
    """
    sockets: list[socket.socket] = []
    try:
        sockets.extend(_bind(address) for address in addresses)
    except ListenError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(address: ListenAddress) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, resolved = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(resolved)
        sock.listen(BACKLOG)  # now, so that a second gateway on this port fails here and not later
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        if platform.is_address_in_use(error):
            reason += f", by {platform.describe_port_holder(address.port)}"
        raise ListenError(f"cannot listen on {address}: {reason}") from None
    return sock


def _address_of(sock: socket.socket) -> ListenAddress:
    host, port = sock.getsockname()[:2]
    return ListenAddress(host, port)
