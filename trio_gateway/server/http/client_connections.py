"""ClientConnections: what all connections of clients share: limits, counts, and their end.

hypercorn calls `serve` for each connection that its listeners take; see `install.py`. Most limits
are in hypercorn's Config, see `HttpConfig`. The `hypercorn` command has another one: its own
options apply there, and connections are not counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from ssl import SSLContext
from typing import Any

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from trio_gateway.config.access_schema import ConnectionLimits, is_loopback
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.access_log import AccessLog
from trio_gateway.server.http.connection import Connection, Facts, Limits
from trio_gateway.server.http.connection_counts import ConnectionCounts, address_group
from trio_gateway.server.http.refusal import last_refusal
from trio_gateway.server.http.types import AsgiApp, ClientGone
from trio_gateway.server.http.wire import Wire, wire_of

log = logging.getLogger(__name__)

_REFUSE_S = 1.0  # to tell a client that it has too many connections
_RETRY_S = 1.0  # the client that is refused may have let go of one by then
# A client whose network is gone says nothing. These find it after about two minutes.
_PROBE_IDLE_S, _PROBE_EVERY_S, _PROBES = 60, 15, 4


class HttpConfig(Config):
    """hypercorn's configuration with sockets, TLS context and limits of our own."""

    def __init__(
        self,
        limits: ConnectionLimits,
        plain: Sequence[Any] = (),
        secure: Sequence[Any] = (),
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._sockets = Sockets([*secure], [*plain], [])
        self._ssl_context = ssl_context
        self.h11_max_incomplete_size = limits.max_header_bytes
        self.keep_alive_max_requests = limits.requests_per_connection
        self.ssl_handshake_timeout = limits.header_timeout_s

    def create_sockets(self) -> Sockets:
        return self._sockets

    def create_ssl_context(self) -> SSLContext | None:
        return self._ssl_context


class ClientConnections:
    """All connections of one server.

    Args:
        counted: whether an address may have `limits.connections_per_address` only.
    """

    def __init__(self, limits: ConnectionLimits, *, counted: bool = True) -> None:
        self.counts = ConnectionCounts(limits.connections_per_address) if counted else None
        self.is_stopping = False
        self._own_limits = limits
        self._open: set[Connection] = set()
        self._handshakes: set[trio.CancelScope] = set()
        self._config: Config | None = None
        self._default_headers, self._default_headers_at = b"", 0
        self._context: WorkerContext | None = None
        self._begun = trio.Event()

    def __len__(self) -> int:
        return len(self._open)

    async def watch(self, on_stopping: Callable[[], None]) -> None:
        """Wait until hypercorn stops, end the idle connections, and say so. hypercorn itself tells
        an app of it by the lifespan, once all connections are done."""
        await self._begun.wait()
        assert self._context is not None
        await self._context.terminated.wait()
        self.stop()
        on_stopping()

    def stop(self) -> None:
        """Idle connections end now, others after their request."""
        self.is_stopping = True
        for handshake in [*self._handshakes]:
            handshake.cancel(reason="the server stops")
        for connection in [*self._open]:
            connection.stop()

    async def serve(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: Any,
    ) -> None:
        """One connection. In the place of hypercorn's TCPServer, whose arguments these are."""
        if self._context is None:
            self._config, self._context = config, context
            self.limits = _limits_of(config, self._own_limits)
            self._begun.set()
        transport = getattr(stream, "transport_stream", stream)
        is_tls = transport is not stream
        try:
            client = parse_socket_addr(transport.socket.family, transport.socket.getpeername())
            server = parse_socket_addr(transport.socket.family, transport.socket.getsockname())
            _probe(transport.socket, client)
        except OSError:  # it is gone already
            await trio.aclose_forcefully(stream)
            return
        wire = wire_of(stream)
        address = address_group(client[0]) if client else None  # None: a Unix socket
        if address is not None and self.counts is not None and not self.counts.enter(address):
            await self._turn_away(wire, is_tls=is_tls)
            return
        try:
            if is_tls and not await self._shook_hands(stream, config.ssl_handshake_timeout):
                await wire.tear()
                return
            scheme = "https" if is_tls else "http"
            called: AsgiApp = partial(
                app, sync_spawn=trio.to_thread.run_sync, call_soon=trio.from_thread.run
            )
            if config.accesslog is not None:
                called = AccessLog(called, config)
            facts = Facts(scheme, client, server, config.root_path, state)
            connection = Connection(called, wire, facts, self)
            self._open.add(connection)
            try:
                await connection.run()
            finally:
                self._open.discard(connection)
        finally:
            if address is not None and self.counts is not None:
                self.counts.leave(address)

    def default_headers(self) -> bytes:
        """The lines that each answer has: the date, and what hypercorn's options add."""
        now = int(trio.current_time())
        if now != self._default_headers_at or not self._default_headers:
            assert self._config is not None
            self._default_headers_at = now
            headers = self._config.response_headers("h11")
            self._default_headers = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._default_headers

    async def _shook_hands(self, stream: Any, timeout_s: float) -> bool:
        """Whether the client has spoken TLS in time."""
        with trio.move_on_after(timeout_s) as handshake:
            self._handshakes.add(handshake)
            try:
                await stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            finally:
                self._handshakes.discard(handshake)
            return True
        return False

    async def _turn_away(self, wire: Wire, *, is_tls: bool) -> None:
        """With an answer if that is cheap; over TLS it would cost a handshake."""
        assert self.counts is not None
        message = f"your address has {self.counts.limit} connections to this gateway"
        error = ApiError(
            429, f"{message}; close some first", "rate_limit_error", code="too_many_connections",
            retry_after_s=_RETRY_S,
        )  # fmt: skip
        try:
            if not is_tls:
                with trio.move_on_after(_REFUSE_S):
                    await wire.send(last_refusal(error).as_http1())
                    await wire.send_end()
        except ClientGone:
            pass
        finally:
            await wire.tear()


def _limits_of(config: Config, own: ConnectionLimits) -> Limits:
    return Limits(
        max_header_bytes=config.h11_max_incomplete_size,
        header_timeout_s=own.header_timeout_s,
        keep_alive_s=config.keep_alive_timeout,
        send_timeout_s=own.send_timeout_s,
        requests=config.keep_alive_max_requests,
        max_message_bytes=config.websocket_max_message_size,
        ping_interval_s=config.websocket_ping_interval,
    )


def _probe(sock: Any, client: Any) -> None:
    """Let the system find out whether a client of another machine is still there."""
    options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    if not client or is_loopback(client[0]):
        return
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1)
    for option, value in zip(options, (_PROBE_IDLE_S, _PROBE_EVERY_S, _PROBES), strict=True):
        if hasattr(trio.socket, option):
            sock.setsockopt(trio.socket.IPPROTO_TCP, getattr(trio.socket, option), value)
