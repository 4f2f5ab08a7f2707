"""EngineSocket: one WebSocket to an engine. `wsproto` has the protocol, this has the bytes.

Like an Exchange it owns no task: who waits for a message reads, and to close it is to close the
connection.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from trio_gateway.engine.errors import EngineDisconnected, EngineTalksGarbage
from trio_gateway.engine.http.exchange import Header, Pulse
from trio_gateway.engine.http.transport import Transport

TOO_BIG = 1009
CLOSE_S = 1.0  # for the other side's part of a close
REFUSAL_MAX_BYTES = 65536
_EVENTS_AT_ONCE = 50  # about 1 ms; one read may have 20,000 fragments in it


class HandshakeRefused(Exception):
    """The engine answered with plain HTTP."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.body = status, body


class SocketClosed(Exception):
    """The engine closed it, or what came was too big; both as the protocol has it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code, self.reason = code, reason


class EngineSocket:
    """`status` is 101 once it is open. One task may send while another one receives."""

    def __init__(self, transport: Transport, pulse: Pulse, max_message_bytes: int) -> None:
        self.status = 0
        self.subprotocol: str | None = None
        self._transport, self._pulse, self._max_bytes = transport, pulse, max_message_bytes
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())
        self._heard = 0
        # Of a message whose end has not come. Not lists: a fragment may have one byte, or none.
        self._text, self._bytes = io.StringIO(), bytearray()
        self._size = 0
        self._sending = trio.Lock()
        self._torn = False  # a frame went out in part
        self._abort_error: Exception | None = None

    async def open(
        self, host: str, target: str, subprotocols: Sequence[str], headers: Sequence[Header]
    ) -> None:
        """The handshake. `headers` come after its own, of which `host` is one.

        Raises HandshakeRefused, and as `receive` does.
        """
        request = Request(
            host=host, target=target, subprotocols=[*subprotocols], extra_headers=[*headers]
        )
        await self._send(request)
        event = await self._next()
        if isinstance(event, AcceptConnection):
            self.status, self.subprotocol = 101, event.subprotocol
            return
        if not isinstance(event, RejectConnection):
            raise EngineTalksGarbage(f"the engine's answer to a WebSocket is {event!r}")
        self.status, body = event.status_code, b""
        with contextlib.suppress(EngineDisconnected):
            while event.has_body and len(body) < REFUSAL_MAX_BYTES:
                part = await self._next()
                assert isinstance(part, RejectData)
                body += part.data
                if part.body_finished:
                    break
        raise HandshakeRefused(self.status, body)

    async def receive(self) -> str | bytes:
        """The next message, whole.

        Raises:
            SocketClosed, EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        while True:
            event = await self._next()
            if isinstance(event, Message):
                if (message := await self._joined(event)) is not None:
                    return message
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                if self._protocol.state is ConnectionState.OPEN:  # nothing that the engine said
                    raise EngineTalksGarbage(f"the engine's WebSocket is not valid: {event.reason}")
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    await self._send(event.response())
                raise SocketClosed(int(event.code), event.reason or "")

    async def _joined(self, event: Message[Any]) -> str | bytes | None:
        """The message that ends with this part, if it is the last."""
        if isinstance(event, TextMessage):
            self._text.write(event.data)
        else:
            self._bytes += event.data
        self._size += len(event.data)
        if self._size > self._max_bytes:
            reason = f"a message is larger than {self._max_bytes} bytes"
            await self.say_close(TOO_BIG, reason)
            raise SocketClosed(TOO_BIG, reason)
        if not event.message_finished:
            return None
        self._size = 0
        if isinstance(event, TextMessage):
            text, self._text = self._text, io.StringIO()
            return text.getvalue()
        whole, self._bytes = self._bytes, bytearray()
        return bytes(whole)

    async def send(self, message: str | bytes) -> None:
        """What an engine does not take waits here. One that is gone shows when it is read of.

        Raises:
            ExchangeAborted
        """
        await self._send(
            TextMessage(message) if isinstance(message, str) else BytesMessage(bytearray(message))
        )

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:
                return  # it is closed, or closing: `receive` says so
            self._torn = True
            try:
                await self._transport.send(data)
                self._torn = False
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                if self._abort_error is not None:
                    raise self._abort_error from None

    async def _next(self) -> Event:
        while True:
            if (event := self._heard_already()) is not None:
                self._heard += 1
                if self._heard % _EVENTS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                return event
            try:
                data = await self._transport.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                if self._abort_error is not None:
                    raise self._abort_error from None
                raise EngineDisconnected("the connection to the engine broke") from error
            if not data:
                raise EngineDisconnected("the engine closed the WebSocket's connection")
            self._pulse.beats += 1
            try:
                self._protocol.receive_data(data)
            except RemoteProtocolError as error:
                raise _not_valid(error) from error
            self._events = self._protocol.events()

    def _heard_already(self) -> Event | None:
        """The next of what the last read gave; they are taken apart one by one."""
        try:
            return next(self._events, None)
        except RemoteProtocolError as error:
            raise _not_valid(error) from error

    async def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait a moment for the engine's."""
        if self._torn or self._protocol.state is not ConnectionState.OPEN:
            return
        with trio.move_on_after(CLOSE_S), contextlib.suppress(Exception):
            await self._send(CloseConnection(code, reason_that_fits(reason)))
            while not isinstance(await self._next(), CloseConnection):
                pass

    def abort(self, error: Exception) -> None:
        """End it from outside: what sends or receives gets this error."""
        self._abort_error = error
        self._transport.close()

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.close()


def _not_valid(error: RemoteProtocolError) -> EngineTalksGarbage:
    return EngineTalksGarbage(f"the engine's WebSocket is not valid: {error}")


def reason_that_fits(reason: str) -> str:
    """A close frame has room for 123 bytes of it."""
    return reason.encode()[:123].decode(errors="ignore")
