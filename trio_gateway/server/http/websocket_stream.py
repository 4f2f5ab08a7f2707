"""Repair F of the HTTP stack: what hypercorn does not tell an app about its WebSockets.

- The code and the reason with which a client closes: the app gets 1006 for every close.
- A client that talks before its handshake is answered: the app is never told that it is over.
- A message that is too large: the app is not told, and the rest of it is collected without bound.
"""

from __future__ import annotations

from typing import Any

from hypercorn.protocol.events import Body, Data, Event
from hypercorn.protocol.ws_stream import WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection
from wsproto.events import Event as WebSocketEvent
from wsproto.frame_protocol import CloseReason


class TellingWSStream(WSStream):
    """hypercorn's WebSocket with repair F."""

    _close: CloseConnection | None = None
    _is_deaf = False

    async def handle(self, event: Event) -> None:
        is_data = isinstance(event, (Body, Data))
        if is_data and self._is_deaf:
            return
        too_early = is_data and not self.closed and not self.handshake.accepted
        await super().handle(event)
        if too_early and self.app_put is not None:
            code = CloseReason.PROTOCOL_ERROR.value
            await self.app_put({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def _send_wsproto_event(self, event: WebSocketEvent) -> None:
        too_big = False
        if isinstance(event, CloseConnection) and self._close is None:
            too_big = event.code == CloseReason.MESSAGE_TOO_BIG
            if too_big or self.connection.state is ConnectionState.REMOTE_CLOSING:
                self._close = event
                self._tell_the_app(event)
        await super()._send_wsproto_event(event)
        if too_big and self.app_put is not None:
            self._is_deaf = True
            self.buffer.clear()
            await self.app_put({"type": "websocket.disconnect"})

    def _tell_the_app(self, close: CloseConnection) -> None:
        """From now on; a response has the code and the reason of what it answers."""
        put = self.app_put
        assert put is not None

        async def put_with_code(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.disconnect":
                code = int(close.code)
                message = {**message, "code": code, "reason": close.reason or ""}
            await put(message)

        self.app_put = put_with_code
