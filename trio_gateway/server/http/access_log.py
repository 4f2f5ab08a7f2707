"""AccessLog: a line for each request and WebSocket, in hypercorn's own access log.

Only the `hypercorn` command has one, by its option `--access-logfile`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import trio
from hypercorn.config import Config

from trio_gateway.server.http.types import AsgiApp, Message, Receive, Scope, Send


class AccessLog:
    """ASGI middleware. The line comes at the end; its status is `-` for a client that left before
    it was answered."""

    def __init__(self, app: AsgiApp, config: Config) -> None:
        self._app, self._log = app, config.log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Any = None
        begun_at = trio.current_time()

        async def noting(message: Message) -> None:
            nonlocal answer
            answer = answer or _answer_in(message)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # It writes, and waits for nothing.
            took_s = trio.current_time() - begun_at
            await self._log.access(scope, answer, took_s)  # type: ignore[arg-type]


def _answer_in(message: Message) -> dict[str, Any] | None:
    """What the client is told by this message, if it is the first of an answer."""
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return {"status": message["status"], "headers": message.get("headers", ())}
        case "websocket.accept":
            return {"status": HTTPStatus.SWITCHING_PROTOCOLS.value, "headers": ()}
        case "websocket.close":
            return {"status": HTTPStatus.FORBIDDEN.value, "headers": ()}
    return None
