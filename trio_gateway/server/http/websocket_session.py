"""One WebSocket of a client, as an ASGI `websocket` app sees it. `wsproto` has the protocol.

The app runs in the task that calls `serve_websocket`. A second task, which ends with it, reads all
the time: so pings are answered and a close is noticed while the app does something else. What the
app has not asked for yet waits here up to `INBOX_BYTES`, then at the client, and pings behind it
wait as well.

Compression (permessage-deflate) is not agreed to. 60 KiB from a client became 60 MiB in one step,
past any limit; 16 MiB to a client held up every other connection for 480 ms; and a message of 150
bytes cost twice the CPU.
"""

from __future__ import annotations

import contextlib
import logging
from enum import Enum, auto
from typing import Protocol

import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.budget import Budget, Hold, NoRoom
from trio_gateway.server.http.refusal import last_refusal
from trio_gateway.server.http.types import HOLD_KEY, AsgiApp, ClientGone, Message, Scope
from trio_gateway.server.http.websocket_handshake import asked_for, invalid
from trio_gateway.server.http.websocket_inbox import MessageInbox
from trio_gateway.tasks import open_flat_nursery

log = logging.getLogger(__name__)

CLOSE_S = 0.4  # for a client's part of a close; less than a shutdown leaves for last words
_EVENTS_AT_ONCE = 50  # about 1 ms


class Wire(Protocol):
    """A client's connection once its request for a WebSocket is read."""

    async def read(self) -> bytes:
        """The client's next bytes; b"" once it is gone or has closed its side."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises ClientGone."""
        ...


async def serve_websocket(
    wire: Wire,
    app: AsgiApp,
    scope: Scope,
    *,
    max_message_bytes: int,
    ping_interval_s: float | None,
    turn: trio.Lock | None = None,
) -> None:
    """From a client's request for a WebSocket to the end of it; then nothing more can be said on
    the connection. An app that fails is logged, and the client is told (1011, or 500 before it is
    accepted). Cancelled, it leaves a connection that is torn.

    Args:
        max_message_bytes: of one message, text in UTF-8. A larger one ends it (1009).
        ping_interval_s: between pings to the client; None: none are sent.
        turn: which all WebSockets share that have much to read.
    """
    try:
        protocol = asked_for(scope)
    except ApiError as error:
        refusal = last_refusal(error, scope["path"], scope["headers"])
        with contextlib.suppress(ClientGone):
            await wire.send(refusal.as_http1())
        return
    session = _Session(wire, scope, protocol, max_message_bytes, turn or trio.Lock())
    async with open_flat_nursery() as nursery:
        nursery.start_soon(session.read)
        if ping_interval_s is not None:
            nursery.start_soon(session.ping, ping_interval_s)
        await session.run(app)
        nursery.cancel_scope.cancel(reason="the WebSocket is over")


class _Phase(Enum):
    ASKED = auto()  # the client waits for an answer
    REFUSING = auto()  # it gets one from the app, in plain HTTP
    OPEN = auto()
    CLOSING = auto()  # it was told that this is over; what it still says is thrown away
    OVER = auto()  # there is nothing more to say, or to hear


class _Session:
    """`read` is one task, `run` with the app another, and the app may have more."""

    def __init__(
        self,
        wire: Wire,
        scope: Scope,
        protocol: WSConnection,
        max_message_bytes: int,
        turn: trio.Lock,
    ) -> None:
        self._turn = turn
        self._wire, self._scope, self._protocol = wire, scope, protocol
        self._max_bytes = max_message_bytes
        self._phase = _Phase.ASKED
        self._inbox = MessageInbox()
        self._begun = bytearray()  # of a message whose end has not come
        self._hold = Budget().hold()  # until the app says of what it is
        scope[HOLD_KEY] = self._set_hold
        self._sending = trio.Lock()
        self._is_torn = False  # something went out in part
        self._is_garbled = False  # what comes has no meaning any more, and wsproto would keep it
        self._has_read_all = trio.Event()

    def _set_hold(self, hold: Hold) -> None:
        self._hold = self._inbox.hold = hold

    # -- the app's task

    async def run(self, app: AsgiApp) -> None:
        """The app, and what is left to say when it ends."""
        await self._inbox.put({"type": "websocket.connect"}, 0)
        try:
            await app(self._scope, self._inbox.get, self.send)
        except Exception:
            log.exception("the app of a WebSocket failed")
        self._inbox.abandon()
        if self._phase is _Phase.ASKED:
            error = ApiError(500, "a bug in the gateway: it did not answer", "internal_error")
            await self._refuse(error, _Phase.OVER)
        elif self._phase is _Phase.OPEN:
            await self._close(CloseReason.INTERNAL_ERROR, None)
        if self._phase is _Phase.CLOSING:
            # A connection that is closed with something unread is reset: the last words are lost.
            with trio.move_on_after(CLOSE_S):
                await self._has_read_all.wait()

    async def send(self, message: Message) -> None:
        """The app's. Nothing happens once the client has left, or was told to go for what it did:
        the app learns it by `receive`.

        Raises:
            RuntimeError: for what does not fit here.
            wsproto's and h11's LocalProtocolError: for an answer that is not valid.
        """
        kind, phase = message["type"], self._phase
        if kind == "websocket.send" and phase is _Phase.OPEN:
            text = message.get("text")
            data = bytearray(message["bytes"]) if text is None else text
            await self._say(TextMessage(data) if isinstance(data, str) else BytesMessage(data))
        elif kind == "websocket.accept" and phase is _Phase.ASKED:
            protocol, headers = message.get("subprotocol"), [*message.get("headers", ())]
            await self._answer(AcceptConnection(protocol, [], headers), phase, _Phase.OPEN)
        elif kind == "websocket.close" and phase is _Phase.OPEN:
            code = message.get("code") or CloseReason.NORMAL_CLOSURE
            await self._close(code, message.get("reason") or None)
        elif kind == "websocket.close" and phase is _Phase.ASKED:
            error = ApiError(403, "the WebSocket was refused", "permission_error")
            await self._refuse(error, _Phase.OVER)
        elif kind == "websocket.http.response.start" and phase is _Phase.ASKED:
            headers = [h for h in message.get("headers", ()) if h[0].lower() != b"connection"]
            headers.append((b"connection", b"close"))
            refusal = RejectConnection(message["status"], headers, has_body=True)
            await self._answer(refusal, phase, _Phase.REFUSING)
        elif kind == "websocket.http.response.body" and phase is _Phase.REFUSING:
            is_last = not message.get("more_body")
            part = RejectData(message.get("body", b""), body_finished=is_last)
            await self._answer(part, phase, _Phase.OVER if is_last else phase)
        elif self._inbox.is_ended:  # an app that goes on sending must not keep others waiting
            await trio.lowlevel.checkpoint()
        else:
            raise RuntimeError(f"{kind} does not fit a WebSocket that is {phase.name}")

    async def _answer(self, event: Event, phase: _Phase, then: _Phase) -> None:
        """Answer the handshake, or go on with it, unless it is too late."""
        async with self._sending:
            if self._phase is phase:
                data = self._protocol.send(event)
                self._phase = then
                await self._send_now(data)

    # -- the task that reads

    async def read(self) -> None:
        """Hear all that the client says, until it has closed the WebSocket or is gone."""
        while data := await self._wire.read():
            if self._phase is _Phase.ASKED:
                said = "the client spoke before it was answered"
                self._tell_the_app(CloseReason.PROTOCOL_ERROR, said)
                await self._refuse(invalid(said), _Phase.CLOSING)
            elif self._protocol.connection is not None and not self._is_garbled:
                self._protocol.receive_data(data)
                await self._hear()
            if self._phase is _Phase.OVER:
                break
        self._end(CloseReason.ABNORMAL_CLOSURE, "")
        self._has_read_all.set()

    async def _hear(self) -> None:
        for count, event in enumerate(self._protocol.events(), 1):
            if isinstance(event, (TextMessage, BytesMessage)):
                await self._collect(event)
            elif isinstance(event, Ping):
                await self._say(event.response())
            elif isinstance(event, CloseConnection):
                await self._hear_close(event)
            if count % _EVENTS_AT_ONCE == 0:  # they can be tiny, and thousands of them
                # One client's after the other: else 20 of them would keep everyone else 20 ms.
                async with self._turn:
                    await trio.lowlevel.checkpoint()

    async def _collect(self, part: TextMessage | BytesMessage) -> None:
        if self._phase is not _Phase.OPEN:
            return
        data = part.data.encode() if isinstance(part, TextMessage) else part.data
        size = len(self._begun) + len(data)
        if size > self._max_bytes:
            self._begun = bytearray()
            too_big = f"a message is larger than {self._max_bytes} bytes"
            await self._close_for(CloseReason.MESSAGE_TOO_BIG, too_big)
            return
        try:
            self._hold.take(len(data))
        except NoRoom as error:
            self._begun = bytearray()
            await self._close_for(CloseReason.TRY_AGAIN_LATER, error.message)
            return
        self._begun += data
        if part.message_finished:
            whole, self._begun = self._begun, bytearray()
            is_text = isinstance(part, TextMessage)
            message = {
                "type": "websocket.receive",
                "bytes": None if is_text else bytes(whole),
                "text": whole.decode() if is_text else None,
            }
            await self._inbox.put(message, size)

    async def _hear_close(self, close: CloseConnection) -> None:
        code, reason = int(close.code), close.reason or ""
        match self._protocol.state:
            case ConnectionState.REMOTE_CLOSING:
                self._phase = _Phase.CLOSING
                self._tell_the_app(code, reason)
                await self._say(close.response())
                self._end(code, reason)
            case ConnectionState.CLOSED:  # the answer to ours
                self._end(code, reason)
            case _:  # it said something that is not valid
                self._is_garbled = True
                if self._phase is _Phase.OPEN:
                    await self._close_for(code, reason)

    # -- any task

    async def ping(self, interval_s: float) -> None:
        while True:
            await trio.sleep(interval_s)
            if self._phase is _Phase.OPEN:
                await self._say(Ping())

    async def _close_for(self, code: int, reason: str) -> None:
        """For what the client did; the app is told at once."""
        self._tell_the_app(code, reason)
        await self._close(code, reason)

    async def _close(self, code: int, reason: str | None) -> None:
        self._phase = _Phase.CLOSING
        await self._say(CloseConnection(code, reason))

    async def _refuse(self, error: ApiError, then: _Phase) -> None:
        self._phase = then
        refusal = last_refusal(error, self._scope["path"], self._scope["headers"])
        async with self._sending:
            await self._send_now(refusal.as_http1())

    async def _say(self, event: Event) -> None:
        async with self._sending:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:
                return  # it is closed, or closing
            await self._send_now(data)

    async def _send_now(self, data: bytes) -> None:
        """With the lock. What is cancelled in the middle has torn the connection."""
        if self._is_torn:
            return
        self._is_torn = True
        try:
            await self._wire.send(bytes(data))
            self._is_torn = False
        except ClientGone:
            pass  # the app learns it by `receive`
        finally:
            if self._is_torn:
                self._end(CloseReason.ABNORMAL_CLOSURE, "")

    def _end(self, code: int, reason: str) -> None:
        self._phase = _Phase.OVER
        self._tell_the_app(code, reason)

    def _tell_the_app(self, code: int, reason: str) -> None:
        self._inbox.end({"type": "websocket.disconnect", "code": int(code), "reason": reason})
