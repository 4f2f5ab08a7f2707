"""What each request owns, and how it ends.

Two of the repairs of the HTTP stack are here:

A. `RequestScopes` withholds hypercorn's `http.disconnect` once the answer is complete. Without it
   quart-trio cancels itself while hypercorn recycles the connection; the idle timeout is then
   never armed, and one idle connection makes a shutdown last the whole graceful timeout.
D. `RequestScopes` lets a request's body arrive before it ends an answer that was given early (a
   413). hypercorn closes at once; the unread rest makes the kernel reset the connection, and the
   client never sees the answer.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack
from functools import partial

import trio

from trio_gateway.server.api.endpoints import Family
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.http.refusal import family_of
from trio_gateway.server.http.types import (
    LINGER_S,
    REQUEST_ID_HEADER,
    REQUEST_KEY,
    AsgiApp,
    Message,
    Receive,
    Scope,
    Send,
)
from trio_gateway.server.http.upload import Upload, Uploads

log = logging.getLogger(__name__)

_BEGINNINGS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)


class TornStream(Exception):
    """The answer cannot be completed and its format has no way to say so: the connection is
    closed without an end, so that the client sees that something is missing."""


class RequestState:
    """What one request owns: its id, and a stack that is unwound at its end, however that comes."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.stack = AsyncExitStack()
        self.upload: Upload  # its body; a WebSocket has none
        self.family = Family.OPENAI  # whose shape its errors have
        self.status = 0  # until an answer begins
        self.observers: list[AnswerObserver] = []  # of what is answered
        self.began_at = trio.current_time()

    def __str__(self) -> str:
        took_s = trio.current_time() - self.began_at
        return f"{self.status or 'no answer'} after {took_s:.3f} s"


class RequestScopes:
    """ASGI middleware: a RequestState for each request and WebSocket, and their ids in the answers.
    Requests also get their upload, and the repairs A and D."""

    def __init__(self, app: AsgiApp, uploads: Uploads | None = None) -> None:
        self._app, self._uploads = app, uploads or Uploads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        state = scope[REQUEST_KEY] = RequestState()
        state.family = family_of(scope["path"], scope["headers"])
        if scope["type"] == "websocket":
            async with state.stack:
                await self._app(scope, receive, partial(_send_with_id, send, state))
        else:
            await self._request(scope, state, receive, send)

    async def _request(
        self, scope: Scope, state: RequestState, receive: Receive, send: Send
    ) -> None:
        upload = state.upload = self._uploads.begin(scope, receive)
        complete = False

        async def send_marking_the_end(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                state.status = message["status"]
                await _send_with_id(send, state, message)
                return
            if message["type"] == "http.response.body" and not message.get("more_body"):
                if message.get("body"):
                    await send({**message, "more_body": True})
                    message = {**message, "body": b""}
                # A gateway that stops waits for no client.
                if not upload.over.is_set() and not self._uploads.is_closed:
                    with trio.move_on_after(LINGER_S):
                        await upload.drain()
                complete = True
            await send(message)

        async def receive_until_the_end() -> Message:
            message = await upload.receive_for_quart()
            if complete and message["type"] == "http.disconnect":
                await trio.sleep_forever()  # the app cancels this when it returns
            return message

        async with state.stack:
            try:
                await self._app(scope, receive_until_the_end, send_marking_the_end)
            except* TornStream as torn:
                log.error("request %s: %s", state.id, _leaf(torn))
            finally:
                self._uploads.end(upload)
                log.debug("request %s: %s %s: %s", state.id, scope["method"], scope["path"], state)


async def _send_with_id(send: Send, state: RequestState, message: Message) -> None:
    if message["type"] in _BEGINNINGS:
        id_header = (REQUEST_ID_HEADER, state.id.encode())
        message = {**message, "headers": [*message["headers"], id_header]}
    await send(message)


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in it that is not a group."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first
