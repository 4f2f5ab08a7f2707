"""Connections: what is open to one engine, requests or questions. All can be ended at once.

A connection serves one request after the other, as long as each answer was read to its end: a small
request costs 50 µs of CPU over a kept one and 190 µs over a fresh one, and elsewhere there is no
TLS handshake to wait for. Any other end of a request closes its connection: llama.cpp's server then
stops generating.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from trio_gateway.engine.errors import EngineDisconnected, ExchangeAborted
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header, Pulse
from trio_gateway.engine.http.idle import IdleConnections, parse_keep_alive
from trio_gateway.engine.http.opener import Opener
from trio_gateway.engine.http.socket import EngineSocket
from trio_gateway.run_clock import run_clock

TOLD_WITHIN_S = 1.0  # that its server has closed a connection before a request came over it


class Connection(Protocol):
    def abort(self, error: Exception) -> None:
        """End it from outside: what waits for it gets this error."""

    def close(self) -> None:
        """Close it at once."""


_C = TypeVar("_C", bound=Connection)


class Connections:
    """What is opened here is closed or kept when it is over, by cancellation too, and ended by
    `abort_all`, also while the engine has not answered yet.

    `pulse` beats with whatever is read from the engine. Those of requests and those of questions
    share one, and what is idle.
    """

    def __init__(self, idle: IdleConnections | None = None, pulse: Pulse | None = None) -> None:
        self.idle = IdleConnections() if idle is None else idle
        self.pulse = Pulse() if pulse is None else pulse
        self._open: set[Connection] = set()
        self.idle.users.append(self._open)
        self._looks: set[Connection] = set()  # of these, those that make an engine read nothing
        self._over: EngineDisconnected | ExchangeAborted | None = None
        self._last_end = -math.inf
        self._now = run_clock()

    @property
    def quiet_since(self) -> float | None:
        """When the last of what was open ended; None: something is open. A GET is no work: what an
        engine's slots hold is the same after it."""
        return None if len(self._open) > len(self._looks) else self._last_end

    @property
    def is_over(self) -> bool:
        """Whether `abort_all` was called."""
        return self._over is not None

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way."""
        return any(isinstance(c, Exchange | EngineSocket) and c.status for c in self._open)

    def __len__(self) -> int:
        return len(self._open)

    async def begin(
        self,
        opener: Opener,
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> Exchange:
        """Send a request. Its answer's status and headers are there; `finish` it in any case.

        A kept connection may be one that its server closes at this very moment: a request that gets
        nothing at all over one is sent again over a fresh one, if that shows soon: an engine that
        closes it later may have worked on the request. A body in pieces may not be there a second
        time, and gets a fresh one at once.

        Raises:
            EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted, and what a
            BodySource raises; then the connection is closed in the middle of the request.
        """
        may_reuse = isinstance(body, bytes)
        while True:
            if self._over is not None:
                raise self._over
            began_at = self._now()
            kept = self.idle.take(opener, began_at) if may_reuse else None
            transport = kept or await opener.connect()
            transport.exchanges += 1
            exchange = Exchange(transport, opener, self.pulse)
            self._open.add(exchange)
            if method == "GET":
                self._looks.add(exchange)
            try:
                if self._over is not None:
                    raise self._over
                if kept is None or not opener.unheard_s:
                    await exchange.request(method, target, headers, body)
                else:
                    kept.break_if_unheard(opener.unheard_s)
                    await exchange.request(method, target, headers, body)
                    kept.break_if_unheard(0)
            except BaseException as error:
                self._forget(exchange)
                exchange.close()
                got_nothing = isinstance(error, EngineDisconnected) and not exchange.has_begun
                if kept is None or not got_nothing:
                    raise
                # A host that is gone tells nothing; the system finds out at its own pace.
                limit_s = TOLD_WITHIN_S + 2 * opener.unheard_s
                if self._now() > began_at + limit_s:
                    raise
                may_reuse = False
                self.idle.drop(opener)  # the others are no better; a second try is not for them
            else:
                return exchange

    def finish(self, exchange: Exchange) -> None:
        """It is over, or nobody wants the rest of it."""
        now = self._forget(exchange)
        if self._over is not None or not exchange.leaves_connection_open:
            exchange.close()
            return
        said = parse_keep_alive(exchange.keep_alive)
        self.idle.keep(exchange.transport, exchange.opener, said, now)
        exchange.let_go()

    def _forget(self, connection: Connection) -> float:
        """When that was."""
        now = self._now()
        self._open.discard(connection)
        if connection in self._looks:
            self._looks.discard(connection)
        else:
            self._last_end = now
        return now

    @contextmanager
    def held(self, connection: _C) -> Iterator[_C]:
        """`connection` in the block; closed after it."""
        self._open.add(connection)
        try:
            if self._over is not None:
                connection.abort(self._over)
            yield connection
        finally:
            connection.close()
            self._forget(connection)

    @asynccontextmanager
    async def open_socket(
        self,
        opener: Opener,
        target: str,
        subprotocols: Sequence[str],
        headers: Sequence[Header],
        max_message_bytes: int,
    ) -> AsyncIterator[EngineSocket]:
        """A WebSocket, open, over a connection of its own.

        Raises:
            HandshakeRefused, EngineUnreachable, EngineDisconnected, EngineTalksGarbage,
            ExchangeAborted
        """
        socket = EngineSocket(await opener.connect(), self.pulse, max_message_bytes)
        with self.held(socket):
            await socket.open(opener.authority.decode(), target, subprotocols, headers)
            yield socket

    def abort_all(self, error: EngineDisconnected | ExchangeAborted) -> None:
        """End all that is open, and all that is opened later; each gets this error. What is idle is
        closed."""
        self._over = error
        self.idle.drop_all()
        for connection in [*self._open]:
            connection.abort(error)
