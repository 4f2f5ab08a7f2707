"""What is changed in hypercorn's connections, and why.

B. `CancellableTCPServer` sends so that it can be cancelled. hypercorn shields `send_all` without a
   deadline, so one client that stops reading blocks a shutdown for ever.
C. `CancellableTCPServer` also ends a connection that its client closed while it was idle. hypercorn
   keeps the dead socket until its keep-alive timeout, and each one costs a descriptor.
E. `CancellableTCPServer` keeps what goes wrong in one connection to that connection. hypercorn lets
   a client's malformed upgrade (h2c, WebSocket) end the whole server, and leaves a connection
   whose client pipelined and went away reading for ever.
F. `TellingWSStream` (websocket_stream.py) tells the app of a WebSocket how its client closed it.

A and D are in scopes.py: they need nothing of hypercorn. hypercorn 0.18;
`tests/server/http/test_repairs.py` fails when a repair is missing, and when one is no longer needed
it can go.
"""

from __future__ import annotations

import logging
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState

from trio_gateway.server.http.types import TERMINATED_KEY

log = logging.getLogger(__name__)

TELL_PROTOCOL_S = 1.0


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
