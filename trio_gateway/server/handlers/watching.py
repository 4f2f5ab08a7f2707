"""Watchers: streams for those who look on. They end at once when the gateway stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from trio_gateway.server.api.errors import ApiError, shutting_down
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.http.types import ClientGone
from trio_gateway.server.relay.answer import Answer, AnswerStream

WATCHERS_MAX = 32
OF_A_KEY = 8  # that is no admin's: others have to find a place as well
RETRY_S = 10.0


class Watchers:
    """At most so many at a time. A stream is sent by its own task, within a scope of which all are
    known here: a reader that takes nothing would otherwise hold up the gateway's end."""

    def __init__(self, what: str, most: int = WATCHERS_MAX) -> None:
        self._what, self._most = what, most
        self._scopes: dict[trio.CancelScope, str | None] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._scopes)

    def close(self) -> None:
        """End those that there are, and let in no others."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel(reason="the gateway is stopping")

    def turn_out(self, reason: str) -> None:
        """End those that there are: who comes back is asked for a key again."""
        for scope in self._scopes:
            scope.cancel(reason=reason)

    async def send(
        self,
        call: Call,
        content_type: bytes,
        next_piece: Callable[[], Awaitable[bytes]],
        sign_of_life: bytes,
    ) -> Answer:
        """Send its client piece after piece, until it is gone, or a piece is empty. It begins with
        the sign of life: an answer's head goes out with the first of its body.

        Raises:
            ApiError: 503, there are as many already.
            ClientGone: it was closed in the middle of a piece.
        """
        headers = [
            (b"content-type", content_type),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would keep it until it is much
        ]
        if call.method == "HEAD":
            return Answer(200, headers, b"")
        is_sending = True
        with self._place(call) as scope:
            await call.send({"type": "http.response.start", "status": 200, "headers": headers})
            piece = sign_of_life
            while piece and not scope.cancel_called:  # what is not begun need not be torn
                is_sending = True
                await call.send({"type": "http.response.body", "body": piece, "more_body": True})
                is_sending = False
                piece = await next_piece()
        if scope.cancelled_caught and is_sending:
            raise ClientGone("it was ended by the gateway")
        return Answer(200, headers, _Sent())

    @contextmanager
    def _place(self, call: Call) -> Iterator[trio.CancelScope]:
        permissions = call.permissions
        key = None if permissions.admin else permissions.key
        own = sum(other == key for other in self._scopes.values())
        if self._is_closed:
            raise shutting_down()
        if len(self) >= self._most or (key is not None and own >= OF_A_KEY):
            most = f"{self._most} at a time" if len(self) >= self._most else f"{OF_A_KEY} of a key"
            raise ApiError(
                503, f"there are too many readers of {self._what} (at most {most}); close another "
                "page or program that reads it", "service_unavailable",
                code="too_many_readers", retry_after_s=RETRY_S,
            )  # fmt: skip
        with trio.CancelScope() as scope:
            self._scopes[scope] = key
            try:
                yield scope
            finally:
                del self._scopes[scope]


class _Sent(AnswerStream):
    """What is left of a stream that was sent already."""

    has_events = True
    is_begun = True

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass
