"""ClientConnections: what all connections of clients share: limits, counts, and their end.

hypercorn calls `serve` for each connection that its listeners take; see `install.py`. Most limits
are in hypercorn's Config, see `HttpConfig`. The `hypercorn` command has another one: its own
options apply there, and connections are not counted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from trio_gateway.config.access_schema import ConnectionLimits, is_loopback
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.budget import default_memory_bytes
from trio_gateway.server.http.access_log import AccessLog
from trio_gateway.server.http.connection import Connection
from trio_gateway.server.http.connection_counts import ConnectionCounts, address_group
from trio_gateway.server.http.inbox import ReadAhead
from trio_gateway.server.http.places import Place, Places, Silence
from trio_gateway.server.http.refusal import last_refusal
from trio_gateway.server.http.types import AsgiApp, ClientGone, Facts, Limits
from trio_gateway.server.http.wire import Wire, wire_of

log = logging.getLogger(__name__)

T = TypeVar("T", "Connection", "_Handshake")

_REFUSE_S = 1.0  # to tell a client that it has too many connections, or there are
_SHARE_READ_AHEAD = 8
_RETRY_S = 1.0  # the client that is refused may have let go of one by then
# A client whose network is gone says nothing. These find it after about two minutes.
_PROBE_IDLE_S, _PROBE_EVERY_S, _PROBES = 60, 15, 4


class HttpConfig(Config):
    """hypercorn's configuration with sockets, TLS context and limits of our own.

    `closed`: set once the sockets are closed; what they have accepted goes on then, for no longer
    than `grace_s`.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        plain: Sequence[Any] = (),
        secure: Sequence[Any] = (),
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._sockets = Sockets([*secure], [*plain], [])
        self._ssl_context = ssl_context
        self.closed, self.grace_s = trio.Event(), math.inf
        self.take_over(limits)

    def take_over(self, limits: ConnectionLimits) -> None:
        """For connections that come from now on."""
        self.h11_max_incomplete_size = limits.max_header_bytes
        self.keep_alive_max_requests = limits.requests_per_connection
        self.ssl_handshake_timeout = limits.header_timeout_s

    @property
    def graceful_timeout(self) -> float:
        """hypercorn asks for it as soon as its listeners are closed, and at no other time."""
        self.closed.set()
        return self.grace_s

    @graceful_timeout.setter
    def graceful_timeout(self, seconds: float) -> None:
        self.grace_s = seconds

    def create_sockets(self) -> Sockets:
        return self._sockets

    def create_ssl_context(self) -> SSLContext | None:
        return self._ssl_context


class _Group:
    """What connections need that came by the same sockets. `is_stopping`: those are closed."""

    def __init__(self, shared: ClientConnections, config: Config) -> None:
        self.read_ahead, self.turn = shared.read_ahead, shared.turn
        self.default_headers = shared.default_headers
        self.is_stopping = shared.is_stopping
        self.take_over(config, shared.own_limits)

    def take_over(self, config: Config, own: ConnectionLimits) -> None:
        self.limits = _limits_of(config, own)


class ClientConnections:
    """All connections of one server.

    Args:
        counted: whether an address may have `limits.connections_per_address` only.
        max_buffered_bytes: a part of it may be read before it is asked for.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        *,
        counted: bool = True,
        max_buffered_bytes: int | None = None,
    ) -> None:
        max_bytes = default_memory_bytes() if max_buffered_bytes is None else max_buffered_bytes
        self.turn = trio.Lock()  # of those that have much to say at once
        self.read_ahead = ReadAhead(max_bytes // _SHARE_READ_AHEAD)
        self.counts = ConnectionCounts(limits.connections_per_address) if counted else None
        self.places = Places(limits.max_connections)
        self.is_stopping = False
        self.own_limits = limits
        self._open: dict[Connection | _Handshake, _Group] = {}
        self._groups = WeakKeyDictionary[Config, _Group]()
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
        for group in [*self._groups.values()]:
            self._stop(group)

    def stop_those_of(self, config: Config) -> None:
        """The same for those that came by its sockets, which are closed."""
        self._stop(self._group(config))

    def _stop(self, group: _Group) -> None:
        group.is_stopping = True
        for connection in [one for one, its in self._open.items() if its is group]:
            connection.stop()

    def take_over(self, limits: ConnectionLimits, max_buffered_bytes: int) -> None:
        """For connections that come from now on."""
        self.own_limits = limits
        self.read_ahead.limit = max_buffered_bytes // _SHARE_READ_AHEAD
        self.places.limit_to(limits.max_connections)
        if self.counts is not None:
            self.counts.limit = limits.connections_per_address
        for config, group in [*self._groups.items()]:
            group.take_over(config, limits)

    def _group(self, config: Config) -> _Group:
        if (found := self._groups.get(config)) is None:
            found = self._groups[config] = _Group(self, config)
        return found

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
            self._begun.set()
        group = self._group(config)
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
        host = client[0] if client else None  # None: a socket file
        address = None if host is None else address_group(host)
        if not self._may_have_one_more(address):
            await _turn_away(
                wire, _too_many(self.own_limits.connections_per_address), is_tls=is_tls
            )
            return
        place = self.places.enter(host, address)
        try:
            if place is None:
                await _turn_away(wire, self.places.error(), is_tls=is_tls)
                return
            if is_tls:
                with self._at(place, _Handshake(), group) as handshake:
                    shook = await handshake.run(stream, config.ssl_handshake_timeout)
                if not shook:
                    await wire.tear()
                    return
            scheme = "https" if is_tls else "http"
            # hypercorn's wrapper has a coroutine for each request, and no use for one.
            assert isinstance(app, ASGIWrapper), "it is no ASGI app"
            called: AsgiApp = app.app  # type: ignore[assignment]
            if config.accesslog is not None:
                called = AccessLog(called, config)
            facts = Facts(scheme, client, server, config.root_path, state)
            with self._at(place, Connection(called, wire, facts, group), group) as connection:
                await connection.run()
        finally:
            if place is not None:
                self.places.leave(place)
            if self.counts is not None and address is not None:
                self.counts.leave(address)

    def default_headers(self) -> bytes:
        """The lines that each answer has: the date, and what hypercorn's options add."""
        now = int(time.time())
        if now != self._default_headers_at or not self._default_headers:
            assert self._config is not None
            self._default_headers_at = now
            headers = self._config.response_headers("h11")
            self._default_headers = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._default_headers

    def _may_have_one_more(self, address: str | None) -> bool:
        if address is None or self.counts is None:
            return True
        return self.counts.enter(address, takes_place=self.places.make_room_at)

    @contextmanager
    def _at(self, place: Place, guest: T, group: _Group) -> Iterator[T]:
        self._open[guest] = group
        place.guest = guest
        try:
            yield guest
        finally:
            del self._open[guest]


class _Handshake:
    """A client that has yet to speak TLS. A Guest."""

    def __init__(self) -> None:
        self._scope, self._since = trio.CancelScope(), trio.current_time()

    async def run(self, stream: Any, timeout_s: float) -> bool:
        """Whether the client has spoken TLS in time."""
        self._scope.deadline = self._since + timeout_s
        with self._scope:
            try:
                await stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            return True
        return False

    def silence(self) -> tuple[Silence, float]:
        return Silence.BEGUN, self._since

    def make_room(self, error: ApiError) -> None:
        self._scope.cancel(reason=error.message)

    def stop(self) -> None:
        self._scope.cancel(reason="the server stops")


def _too_many(limit: int) -> ApiError:
    return ApiError(
        429, f"your address has {limit} connections to this gateway; close some first",
        "rate_limit_error", code="too_many_connections", retry_after_s=_RETRY_S,
    )  # fmt: skip


async def _turn_away(wire: Wire, error: ApiError, *, is_tls: bool) -> None:
    """With an answer if that is cheap; over TLS it would cost a handshake."""
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
