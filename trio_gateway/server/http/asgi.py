"""What the HTTP stack (hypercorn, quart-trio) needs repaired, and what each request owns.

A. `RequestScopes` withholds hypercorn's `http.disconnect` once the answer is complete. Without it
   quart-trio cancels itself while hypercorn recycles the connection; the idle timeout is then
   never armed, and one idle connection makes a shutdown last the whole graceful timeout.
B. `CancellableTCPServer` sends so that it can be cancelled. hypercorn shields `send_all` without a
   deadline, so one client that stops reading blocks a shutdown for ever.
C. `CancellableTCPServer` also ends a connection that its client closed while it was idle. hypercorn
   keeps the dead socket until its keep-alive timeout, and each one costs a descriptor.
D. `RequestScopes` lets a request's body arrive before it ends an answer that was given early (a
   413). hypercorn closes at once; the unread rest makes the kernel reset the connection, and the
   client never sees the answer.
E. `CancellableTCPServer` keeps what goes wrong in one connection to that connection. hypercorn lets
   a client's malformed upgrade (h2c, WebSocket) end the whole server, and leaves a connection
   whose client pipelined and went away reading for ever.
F. `TellingWSStream` (websocket_stream.py) tells the app of a WebSocket how its client closed it.

hypercorn 0.18; `tests/server/http/test_repairs.py` fails when a repair is missing, and when one is
not needed any more it can go.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import hypercorn.protocol.h11
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from quart import Request

from trio_gateway.server.dumps import DumpRecord
from trio_gateway.server.http.websocket_stream import TellingWSStream

if TYPE_CHECKING:
    from trio_gateway.server.http.upload import Upload, Uploads

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

TELL_PROTOCOL_S = 1.0
LINGER_S = 5.0  # for the rest of a body whose request is answered already

REQUEST_KEY = "trio_gateway.request"
TERMINATED_KEY = "trio_gateway.terminated"
REQUEST_ID_HEADER = b"x-gateway-request-id"


class TornStream(Exception):
    """The answer cannot be completed and its format has no way to say so: the connection is
    closed without an end, so that the client sees that something is missing."""


class RequestState:
    """What one request owns: its id, a nursery whose tasks end with the request, and a stack that
    is unwound after them, however the request ends."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.nursery: trio.Nursery
        self.stack = AsyncExitStack()
        self.upload: Upload | None = None  # the body, of a request that is read as it comes
        self.status = 0  # until an answer begins
        self.record: DumpRecord | None = None
        self.began_at = trio.current_time()

    def __str__(self) -> str:
        took_s = trio.current_time() - self.began_at
        return f"{self.status or 'no answer'} after {took_s:.3f} s"


def state_of(request: Request) -> RequestState:
    """The state of the request that Quart is handling."""
    state: RequestState = cast(Scope, request.scope)[REQUEST_KEY]
    return state


class RequestScopes:
    """ASGI middleware: the repairs A and D, a RequestState for each request, and its `upload`."""

    def __init__(
        self,
        app: AsgiApp,
        closing: trio.Event | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        self._app, self._uploads = app, uploads
        # Once set, nobody is waited for.
        self._closing = trio.Event() if closing is None else closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope[REQUEST_KEY] = RequestState()
        complete, received = False, trio.Event()
        if self._uploads is not None:
            state.upload = self._uploads.begin(scope, receive)
        if (upload := state.upload) is not None:
            receive, received = upload.receive_for_quart, upload.over

        async def send_marking_the_end(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                state.status = message["status"]
                id_header = (REQUEST_ID_HEADER, state.id.encode())
                message = {**message, "headers": [*message["headers"], id_header]}
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                if message.get("body"):
                    await send({**message, "more_body": True})
                    message = {**message, "body": b""}
                if not received.is_set() and not self._closing.is_set():
                    with trio.move_on_after(LINGER_S):
                        # The app's own reading drains what is no upload.
                        await (received.wait() if upload is None else upload.drain())
                complete = True
            await send(message)

        async def receive_until_the_end() -> Message:
            message = await receive()
            if not message.get("more_body") and upload is None:
                received.set()
            if complete and message["type"] == "http.disconnect":
                await trio.sleep_forever()  # the app cancels this when it returns
            return message

        async with state.stack:
            try:
                async with trio.open_nursery() as state.nursery:
                    await self._app(scope, receive_until_the_end, send_marking_the_end)
                    state.nursery.cancel_scope.cancel(reason="the request is over")
            except* TornStream as torn:
                log.error("request %s: %s", state.id, _leaf(torn))
            finally:
                if self._uploads is not None and upload is not None:
                    self._uploads.end(upload)
                log.debug("request %s: %s %s: %s", state.id, scope["method"], scope["path"], state)


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in it that is no group."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


class CancellableTCPServer(TCPServer):
    """hypercorn's connection with the repairs B, C and E.

    It also lets the app see hypercorn's own shutdown, which the ASGI lifespan only tells of once
    all connections are done.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: Any,
    ) -> None:
        told = ConnectionState({**state, TERMINATED_KEY: context.terminated})
        super().__init__(app, config, context, told, stream)
        self._reading = trio.CancelScope()
        self._read_over = False

    async def run(self) -> None:
        try:
            await super().run()
        except* Exception as broken:  # noqa: BLE001 - of one client; the others must go on
            log.warning("a connection broke off: %r", broken.exceptions[0])

    async def _read_data(self) -> None:
        with self._reading:
            await super()._read_data()
        # Nothing more will come. The idle timeout would keep the connection's nursery, and with
        # it the socket: it is stopped, and an answer that ends just now must not arm it again.
        self._read_over = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            if not (self._read_over and isinstance(event, Updated)):
                await super().protocol_send(event)
            return
        # The lock is nearly always free; not awaiting it then saves 12-24 % of CPU per chunk.
        try:
            self.send_lock.acquire_nowait()
        except trio.WouldBlock:
            await self.send_lock.acquire()
        try:
            await self.stream.send_all(event.data)
        except trio.Cancelled:
            # Part of it may be sent: nothing that follows would make sense to the client.
            await trio.aclose_forcefully(self.stream)
            # Shielded, so that the protocol learns of it: it would else begin an error answer in
            # the middle of this one, and h11's complaint would end the whole server.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TELL_PROTOCOL_S):
                await self.protocol.handle(Closed())
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            # Busy: hypercorn is closing the stream from another task.
            await self.protocol.handle(Closed())
            self._reading.cancel(reason="the client is gone")
        finally:
            self.send_lock.release()


def install_repairs() -> None:
    """Let hypercorn use CancellableTCPServer and TellingWSStream."""
    vars(hypercorn.trio.run)["TCPServer"] = CancellableTCPServer
    vars(hypercorn.protocol.h11)["WSStream"] = TellingWSStream
