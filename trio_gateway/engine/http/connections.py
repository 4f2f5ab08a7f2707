"""Connections: what is open to one engine, requests or questions. All can be ended at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from trio_gateway.engine.errors import EngineDisconnected, ExchangeAborted
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header, Pulse
from trio_gateway.engine.http.opener import Opener
from trio_gateway.engine.http.socket import EngineSocket


class Connection(Protocol):
    def abort(self, error: Exception) -> None:
        """End it from outside: what waits for it gets this error."""

    def close(self) -> None:
        """Close it at once."""


_C = TypeVar("_C", bound=Connection)


class Connections:
    """What is opened here is closed when its block is left, by cancellation too, and ended by
    `abort_all`, also while the engine has not answered yet.

    `pulse` beats with whatever is read from the engine; several Connections to it may share one.
    """

    def __init__(self, pulse: Pulse | None = None) -> None:
        self.pulse = Pulse() if pulse is None else pulse
        self._open: set[Connection] = set()
        self._over: EngineDisconnected | ExchangeAborted | None = None

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
            self._open.discard(connection)

    @asynccontextmanager
    async def open(
        self,
        opener: Opener,
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> AsyncIterator[Exchange]:
        """Send a request; the block has the answer's status, headers and byte stream.

        Raises:
            EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted, and what a
            BodySource raises; then the connection is closed in the middle of the request.
        """
        exchange = Exchange(await opener.connect(), self.pulse)
        with self.held(exchange):
            named = [(b"Host", opener.authority), *headers]
            await exchange.request(method, target, named, body)
            yield exchange

    @asynccontextmanager
    async def open_socket(
        self,
        opener: Opener,
        target: str,
        subprotocols: Sequence[str],
        headers: Sequence[Header],
        max_message_bytes: int,
    ) -> AsyncIterator[EngineSocket]:
        """A WebSocket, open.

        Raises:
            HandshakeRefused, EngineUnreachable, EngineDisconnected, EngineTalksGarbage,
            ExchangeAborted
        """
        socket = EngineSocket(await opener.connect(), self.pulse, max_message_bytes)
        with self.held(socket):
            await socket.open(opener.authority.decode(), target, subprotocols, headers)
            yield socket

    def abort_all(self, error: EngineDisconnected | ExchangeAborted) -> None:
        """End all that is open, and all that is opened later; each gets this error."""
        self._over = error
        for connection in [*self._open]:
            connection.abort(error)
