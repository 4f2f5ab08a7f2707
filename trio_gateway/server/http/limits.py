"""Limits on one client's connections and headers, and how it is told of them.

- `ConnectionCounts`: connections at a time from one address. `CountedTCPServer` closes the others.
- `LimitedH11Protocol`: hypercorn's HTTP/1 with a limit on the size of the headers that holds also
  where they come in one piece (h11 limits only what is incomplete), a time limit on them (hypercorn
  has only the idle timeout), and error answers that say what is wrong (hypercorn's are empty).

The limits are in hypercorn's Config, see `HttpConfig`. The `hypercorn` command has another one: its
own options apply there, `header_timeout` has its default, and connections are not counted.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any

import h11
import trio
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol

from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.refusal import last_refusal
from trio_gateway.server.http.repairs import CancellableTCPServer

log = logging.getLogger(__name__)

_REFUSE_S = 1.0  # to tell a client that it has too many connections
_RETRY_S = 1.0  # the client that is refused may have let go of one by then
_IPV6_PREFIX = 64  # what one client has of its own


class HttpConfig(Config):
    """hypercorn's configuration with sockets, TLS context and limits of our own."""

    def __init__(
        self,
        limits: ConnectionLimits,
        plain: Sequence[Any] = (),
        secure: Sequence[Any] = (),
        ssl_context: SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.counts = ConnectionCounts(limits.connections_per_address)
        self._sockets = Sockets([*secure], [*plain], [])
        self._ssl_context = ssl_context
        self.h11_max_incomplete_size = limits.max_header_bytes
        self.h2_max_header_list_size = limits.max_header_bytes
        self.keep_alive_max_requests = limits.requests_per_connection
        self.ssl_handshake_timeout = limits.header_timeout_s

    def create_sockets(self) -> Sockets:
        return self._sockets

    def create_ssl_context(self) -> SSLContext | None:
        return self._ssl_context


def _header_timeout_s(config: Config) -> float:
    limits = config.limits if isinstance(config, HttpConfig) else ConnectionLimits()
    return limits.header_timeout_s


def address_group(host: str | None) -> str:
    """What is taken as one client: an IPv4 address, or the network of an IPv6 address."""
    if host is None:
        return "unix"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if (mapped := address.ipv4_mapped) is not None:
        return str(mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))


class ConnectionCounts:
    """Open connections by address. Holds no more entries than there are connections."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[str, int] = {}
        self._told = set[str]()

    def enter(self, address: str) -> bool:
        """Whether there may be one more; if so, `leave` must follow."""
        count = self._open.get(address, 0)
        if count >= self.limit:
            if address not in self._told:  # once, until it has none any more
                self._told.add(address)
                log.warning(
                    "%s has %d connections; more are refused (server.connections_per_address)",
                    address, count,
                )  # fmt: skip
            return False
        self._open[address] = count + 1
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
            self._told.discard(address)

    def __len__(self) -> int:
        return len(self._open)


class CountedTCPServer(CancellableTCPServer):
    """A connection that is counted, where the configuration counts them."""

    async def run(self) -> None:
        peer = self._peer()
        if peer is None or not isinstance(self.config, HttpConfig):
            await super().run()
            return
        counts, address = self.config.counts, address_group(peer)
        if not counts.enter(address):
            await self._refuse(counts.limit)
            return
        try:
            await super().run()
        finally:
            counts.leave(address)

    def _peer(self) -> str | None:
        """The address of the other side; None for a Unix socket, and for one that is gone."""
        stream: Any = self.stream
        socket = getattr(stream, "transport_stream", stream).socket
        try:
            name = socket.getpeername()
        except OSError:
            return None
        return name[0] if isinstance(name, tuple) else None

    async def _refuse(self, limit: int) -> None:
        """With an answer if that is cheap; over TLS it would cost a handshake."""
        stream: Any = self.stream
        if not hasattr(stream, "transport_stream"):
            message = f"your address has {limit} connections to this gateway; close some first"
            error = ApiError(
                429, message, "rate_limit_error", code="too_many_connections",
                retry_after_s=_RETRY_S,
            )  # fmt: skip
            with trio.move_on_after(_REFUSE_S):
                try:
                    await stream.send_all(last_refusal(error).as_http1())
                    await stream.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        await trio.aclose_forcefully(stream)


class LimitedH11Protocol(H11Protocol):
    """hypercorn's HTTP/1 protocol with limits on headers, and errors that say what is wrong."""

    _header_scope: trio.CancelScope | None = None
    _over = False

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed) or (isinstance(event, RawData) and not event.data):
            self._over = True
            self._stop_header_clock()
        await super().handle(event)
        if isinstance(event, RawData):
            self._watch_headers()

    def _watch_headers(self) -> None:
        """Limit the time for the headers of a request that has begun."""
        begun = not self._over and self.stream is None and self.connection.our_state is h11.IDLE
        if begun and self._header_scope is None and self.connection.trailing_data[0]:
            self._header_scope = trio.CancelScope()
            self.task_group.spawn(self._end_slow_headers, self._header_scope)

    def _stop_header_clock(self) -> None:
        if self._header_scope is not None:
            self._header_scope.cancel(reason="the headers are complete, or the connection is gone")
            self._header_scope = None

    async def _end_slow_headers(self, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(_header_timeout_s(self.config))
        if not scope.cancelled_caught and self._header_scope is scope:
            self._header_scope = None
            limit_s = _header_timeout_s(self.config)
            message = f"the headers did not arrive within {limit_s:g} s (header_timeout)"
            await self._refuse(ApiError(408, message, code="header_timeout"))

    async def _create_stream(self, request: h11.Request) -> None:
        self._stop_header_clock()
        size = len(request.target) + sum(len(n) + len(v) + 4 for n, v in request.headers)
        if size > self.config.h11_max_incomplete_size:
            await self._refuse(self._headers_too_large(), request)
            return
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        """hypercorn's own refusal of what h11 cannot read; it closes the connection then."""
        if status_code == 431:
            await self._answer(self._headers_too_large())
        else:
            message = "this is not an HTTP/1.1 request"
            await self._answer(ApiError(status_code, message, code="invalid_http"))

    async def _refuse(self, error: ApiError, request: h11.Request | None = None) -> None:
        await self._answer(error, request)
        await self.send(Closed())

    async def _answer(self, error: ApiError, request: h11.Request | None = None) -> None:
        path = "" if request is None else request.target.partition(b"?")[0].decode("latin-1")
        refusal = last_refusal(error, path, () if request is None else request.headers)
        headers = refusal.headers + self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
        await self._send_h11_event(h11.Data(data=refusal.body))
        await self._send_h11_event(h11.EndOfMessage())

    def _headers_too_large(self) -> ApiError:
        most = self.config.h11_max_incomplete_size
        message = f"the headers are larger than {most} bytes (max_header_size)"
        return ApiError(431, message, code="headers_too_large")
