"""Listening: the addresses on which clients are accepted, and how others take their place.

Each address has a `serve` of hypercorn's for itself, so that one can end while the others go on.
When the configuration names others, the new ones are opened first; what has come by an old one is
answered to its end, as long as that takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import trio
from hypercorn.trio import serve

from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.schema import ListenAddress, ServerConfig
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.listeners import BACKLOG, Address, ListenError, Opened
from trio_gateway.server.http.tls import Certificate
from trio_gateway.server.http.types import AsgiApp

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
# After the grace a stream still has to send its error event, and a connection to close.
LAST_WORDS_S = 0.5
# Opening and closing wait for nobody; what takes longer is a bug, and must not hold up a reload.
MOVE_S = 10.0


class _Listener:
    """One address. `stop`: no more is accepted. `scope`: of all that has come by it."""

    def __init__(self, opened: Opened, config: HttpConfig) -> None:
        self.opened, self.config = opened, config
        self.stop, self.scope = trio.Event(), trio.CancelScope()

    async def close(self) -> None:
        self.stop.set()
        await self.config.closed.wait()


class Listening:
    """For an ASGI app.

    Args:
        connections: gets what is accepted; `install` has told hypercorn of it.
        closing: the server stops.
        grace_s: how long requests may take then, asked at that moment.
        max_message_bytes: of a WebSocket.
    """

    def __init__(
        self,
        app: AsgiApp,
        connections: ClientConnections,
        closing: trio.Event,
        grace_s: Callable[[], float],
        max_message_bytes: int,
    ) -> None:
        self._app, self._connections, self._closing = app, connections, closing
        self._grace_s, self._max_message_bytes = grace_s, max_message_bytes
        self._open: list[_Listener] = []
        self._old: set[_Listener] = set()  # closed, with requests that go on
        self._server = ServerConfig()
        self._certificate: Certificate | None = None
        self._watching = trio.CancelScope()  # of the certificate
        self._nursery: trio.Nursery | None = None

    def open(self, server: ServerConfig) -> None:
        """Listen on all addresses, or on none; `run` accepts what comes.

        Raises:
            ListenError
        """
        self._server = server
        self._certificate = None if server.tls is None else Certificate(server.tls)
        self._open = [self._listener(opened) for opened in _opened(_addresses(server))]

    def close(self) -> None:
        """What `run` has not been called for, or is over."""
        for listener in self._open:
            listener.opened.close()

    @property
    def addresses(self) -> list[Address]:
        return [listener.opened.is_at for listener in self._open]

    async def run(
        self, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until `closing`, and then until all is answered, or the grace is over."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            addresses = self.addresses
            for listener in self._open:
                await nursery.start(self._serve, listener)
            nursery.start_soon(self._watch)
            task_status.started(addresses)
            await self._closing.wait()
            limit_s = self._grace_s() + LAST_WORDS_S
            for listener in self._open:
                listener.config.grace_s = limit_s
                listener.stop.set()
            latest = trio.current_time() + limit_s
            for listener in self._old:
                listener.scope.deadline = min(listener.scope.deadline, latest)
            for listener in [*self._open]:  # a reload may be under way
                await listener.config.closed.wait()
            self._connections.stop()
            self._watching.cancel(reason="the gateway is stopping")

    def end_soon(self) -> None:
        """No more than the last words."""
        for listener in (*self._open, *self._old):
            listener.scope.deadline = trio.current_time() + LAST_WORDS_S

    # -- other addresses ---------------------------------------------------------------------------

    async def move_to(self, server: ServerConfig, switch: Callable[[], None]) -> None:
        """Listen on its addresses, with its TLS, instead. One that is as before is left alone.

        The others queue who comes before the old ones close, and are served only after `switch`: no
        request meets rules that are not for its address.

        Raises:
            ListenError: one of them cannot be opened, and all is as it was.
        """
        with trio.fail_after(MOVE_S, shield=True):  # half of it must not be left undone
            await self._move_to(server, switch)

    async def _move_to(self, server: ServerConfig, switch: Callable[[], None]) -> None:
        secures, certificate = server.tls != self._server.tls, self._certificate
        if secures:
            certificate = None if server.tls is None else Certificate(server.tls)
        left, kept, twins, wanted = [*self._open], list[_Listener](), list[_Listener](), []
        for address in _addresses(server):
            if (same := _same(left, address)) is None:
                wanted.append(address)
                continue
            left.remove(same)
            is_replaced = secures and isinstance(address, ListenAddress)
            (twins if is_replaced else kept).append(same)
        opened = await self._opened(wanted, left)
        for listener in kept:
            self._permit(listener, server)
        opened += [listener.opened.twin() for listener in twins]
        self._server, self._certificate = server, certificate
        for listener in kept:
            listener.config.take_over(server.limits)
        for listener in (*left, *twins):
            await self._retire(listener)
        switch()
        for one in opened:
            self._open.append(listener := self._listener(one))
            await self._start(listener)
        if secures:
            self._watching.cancel(reason="another certificate is used")
            self._watching = trio.CancelScope()
            if self._nursery is not None and not self._closing.is_set():
                self._nursery.start_soon(self._watch)

    async def _opened(self, wanted: Sequence[Address], left: list[_Listener]) -> list[Opened]:
        """Where a port is taken by an old address of ours (127.0.0.1 and 0.0.0.0 cannot both have
        it), that one is closed first, so that for a moment nobody listens. Raises ListenError."""
        found, closed = list[Opened](), list[_Listener]()
        try:
            for address in wanted:
                try:
                    found.append(Opened(address))
                    continue
                except ListenError as error:
                    ours = [one for one in left if _has_port_of(one, address)]
                    if not (error.is_taken and ours):
                        raise
                for listener in ours:
                    left.remove(listener)
                    closed.append(listener)
                    await self._retire(listener)
                found.append(Opened(address))
        except ListenError:
            for one in found:
                one.close()
            for listener in closed:
                self._open.append(again := self._listener(Opened(listener.opened.address)))
                await self._start(again)
            raise
        return found

    async def _start(self, listener: _Listener) -> None:
        if self._closing.is_set() or self._nursery is None:
            self._open.remove(listener)
            listener.opened.close()
            listener.config.closed.set()
            return
        await self._nursery.start(self._serve, listener)
        log.info("listening on %s", listener.opened.is_at)

    def _permit(self, listener: _Listener, server: ServerConfig) -> None:
        for address in server.listen_unix:
            at = listener.opened.address
            if isinstance(at, UnixAddress) and at.path == address.path and at != address:
                listener.opened.permit(address)

    async def _retire(self, listener: _Listener) -> None:
        """It accepts no more; what it has accepted goes on."""
        self._open.remove(listener)
        self._old.add(listener)
        if not self._closing.is_set():
            listener.config.grace_s = math.inf
        await listener.close()
        self._connections.stop_those_of(listener.config)
        log.info("no longer listening on %s", listener.opened.is_at)

    # -- one of them -------------------------------------------------------------------------------

    async def _serve(
        self,
        listener: _Listener,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            with listener.scope:
                await serve(
                    self._app,  # type: ignore[arg-type]
                    listener.config,
                    shutdown_trigger=listener.stop.wait,
                    task_status=task_status,
                )
        finally:
            self._old.discard(listener)
            listener.config.closed.set()
            listener.opened.close()

    async def _watch(self) -> None:
        with self._watching:
            if self._certificate is not None:
                await self._certificate.watch()

    def _listener(self, opened: Opened) -> _Listener:
        # A socket file is on this machine: no network to listen in on.
        is_secure = self._certificate is not None and isinstance(opened.address, ListenAddress)
        sockets, limits = [opened.socket], self._server.limits
        if is_secure and self._certificate is not None:
            config = HttpConfig(limits, (), sockets, self._certificate.context)
        else:
            config = HttpConfig(limits, sockets)
        config.backlog = BACKLOG
        config.keep_alive_timeout = KEEP_ALIVE_S
        config.include_server_header = False
        config.websocket_max_message_size = self._max_message_bytes
        config.accesslog = None
        http_log = logging.getLogger("trio_gateway.http")
        http_log.setLevel(logging.WARNING)  # it announces the sockets a second time
        config.errorlog = http_log
        return _Listener(opened, config)


def _addresses(server: ServerConfig) -> list[Address]:
    return [*server.listen, *server.listen_unix]


def _opened(addresses: Sequence[Address]) -> list[Opened]:
    """All or none. Raises ListenError."""
    found = list[Opened]()
    try:
        for address in addresses:
            found.append(Opened(address))
    except ListenError:
        for one in found:
            one.close()
        raise
    return found


def _same(listeners: Sequence[_Listener], address: Address) -> _Listener | None:
    """The one that is there, at a port of the system's choice perhaps; a socket file may have other
    permissions."""
    for listener in listeners:
        at = listener.opened.address
        if address in (at, listener.opened.is_at):
            return listener
        paths = [one.path for one in (at, address) if isinstance(one, UnixAddress)]
        if len(paths) == 2 and paths[0] == paths[1]:
            return listener
    return None


def _has_port_of(listener: _Listener, address: Address) -> bool:
    at = listener.opened.is_at
    if isinstance(at, UnixAddress) or isinstance(address, UnixAddress):
        return False
    return at.port == address.port
