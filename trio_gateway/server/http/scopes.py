"""What each request owns, and how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio

from trio_gateway.bus import Bus
from trio_gateway.held import Held
from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.api.trace_context import TRACE_HEADERS, TRACEPARENT, trace_of
from trio_gateway.server.budget import Budget, Hold
from trio_gateway.server.http.cycle import Cycle
from trio_gateway.server.http.refusal import family_of, refusal_in
from trio_gateway.server.http.types import (
    CYCLE_KEY,
    FIRST_KEY,
    HOLD_KEY,
    REQUEST_ID_HEADER,
    REQUEST_KEY,
    ROOT_KEY,
    AsgiApp,
    ClientGone,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    first_headers,
    new_request_id,
)
from trio_gateway.server.http.upload import Upload, Uploads
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import CANCELLED, RequestRecord

log = logging.getLogger(__name__)

_BEGINNINGS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)


CANCELLED_STATUS = 499  # as proxies write it down; clients that try again do so after 409 and 5xx
TELL_S = 1.0  # for the last words to a client whose request is cancelled


def cancelled() -> ApiError:
    """499: somebody ended the request."""
    message = "the request was cancelled with POST /gateway/requests/{id}/cancel"
    return ApiError(CANCELLED_STATUS, message, "request_cancelled", code=CANCELLED)


class TornStream(Exception):
    """The answer cannot be completed and its format has no way to say so: the connection is
    closed without an end, so that the client sees that something is missing."""


class RequestState:
    """What one request owns: its id, and a stack that is unwound at its end, however that comes."""

    upload: Upload  # its body; a WebSocket has none
    # The class's own until they change: to set them all costs each request 30 bytecodes.
    family = Family.OPENAI  # whose shape its errors have
    status = 0  # until an answer begins
    hops = b""  # which gateways it has passed, as the header that says so
    cors: Sequence[Header] = ()  # what the answer tells browsers
    is_torn = False  # it ended without an end
    is_cancelled = False
    cycle: Cycle | None = None  # of HTTP
    scope: Cycle | trio.CancelScope | None = None  # what ends it if it is cancelled

    def __init__(self, hold: Hold, began_at: float) -> None:
        self.hold = hold  # what it holds of the budget
        self.began_at = began_at
        self.stack = Held()
        self.observers: list[AnswerObserver] = []  # of what is answered
        # An error as the end of what was sent of an answer; empty if there is no place for one.
        self.last_words: Callable[[ApiError], bytes] = _none
        self.record = RequestRecord(new_request_id(), began_at, time.time())

    @property
    def id(self) -> str:
        return self.record.id

    def cancel(self) -> None:
        """End it, wherever it is; its client is told."""
        if self.scope is not None:
            self.is_cancelled = True
            self.scope.cancel(reason="somebody has cancelled the request")

    def forget(self) -> None:
        """It is over. What it refers to refers to it, which is work for the garbage collector."""
        self.last_words, self.cycle, self.scope = _none, None, None

    def __str__(self) -> str:
        took_s = trio.current_time() - self.began_at
        return f"{self.status or 'no answer'} after {took_s:.3f} s"


class RequestScopes:
    """ASGI middleware: a RequestState for each request and WebSocket, and their ids in the answers.
    Requests also get their upload. What they hold of the budget is given back last."""

    def __init__(
        self,
        app: AsgiApp,
        uploads: Uploads | None = None,
        budget: Budget | None = None,
        book: RequestBook | None = None,
    ) -> None:
        self._app, self._uploads = app, uploads or Uploads()
        self._budget, self._book = budget or Budget(), book or RequestBook(Bus())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        hold, cycle = self._budget.hold(), scope.get(CYCLE_KEY)
        began_at = trio.current_time() if cycle is None else cycle.began_at
        state = scope[REQUEST_KEY] = RequestState(hold, began_at)
        if cycle is not None:
            state.cycle = state.scope = cycle
        if (first := scope.get(FIRST_KEY)) is None:
            first = scope[FIRST_KEY] = first_headers(scope["headers"])
        state.family = family_of(scope["path"], first)
        if not TRACE_HEADERS.isdisjoint(first):
            state.record.trace = trace_of(scope["headers"])
        is_gone = True  # unless it comes to its own end
        try:
            if scope["type"] == "websocket":
                if HOLD_KEY in scope:
                    scope[HOLD_KEY](hold)
                async with state.stack:
                    await self._app(scope, receive, partial(_send_with_id, send, state))
            else:
                await self._request(scope, state, receive, send)
            is_gone = False
        finally:
            if cycle is not None and cycle.is_complete:
                is_gone = False  # it went with all of its answer, before anybody here was done
            hold.close()
            state.forget()
            record = state.record
            if record.endpoint:
                record.ends(
                    trio.current_time(), state.status, is_gone=is_gone, is_torn=state.is_torn
                )
                self._book.end(record)

    async def _request(
        self, scope: Scope, state: RequestState, receive: Receive, send: Send
    ) -> None:
        upload = state.upload = self._uploads.begin(scope, receive, state.hold)
        send = partial(_send_with_id, send, state)
        async with state.stack:
            try:
                try:
                    await self._app(scope, upload.receive_for_quart, send)
                except (trio.Cancelled, BaseExceptionGroup):
                    if state.is_cancelled:
                        await _say_cancelled(scope, state, send)
                    raise
            except* TornStream as torn:
                state.is_torn = True
                log.error("request %s: %s", state.id, _leaf(torn))
            finally:
                self._uploads.end(upload)
                state.record.request_bytes = upload.taken
                log.debug("request %s: %s %s: %s", state.id, scope["method"], scope["path"], state)


async def _say_cancelled(scope: Scope, state: RequestState, send: Send) -> None:
    """Its engine is free by now. Where nothing can be said any more, the connection ends without
    an end of the answer."""
    assert state.cycle is not None
    error = cancelled()
    state.record.fails(CANCELLED)
    # Shielded: it is this request's scope that is cancelled.
    with trio.move_on_after(TELL_S, shield=True), suppress(ClientGone):
        if not state.cycle.has_sent:
            state.cycle.start_over()
            refusal = refusal_in(scope, error)
            for observer in state.observers:
                observer.begins(refusal.status, refusal.headers)
                observer.continues(refusal.body)
            await refusal.send(scope, send)
        elif words := state.last_words(error):
            for observer in state.observers:
                observer.continues(words)
            await send({"type": "http.response.body", "body": words, "more_body": False})


def _none(_: ApiError) -> bytes:
    return b""


def below_root_path(scope: Scope) -> Scope:
    """The request as if there were no `--root-path`, so that nobody behind it sees another path
    than the guard. A proxy may have taken it off already."""
    root = f"/{scope['root_path'].strip('/')}"
    path, raw = scope["path"], scope["raw_path"]
    below = {**scope, "root_path": "", ROOT_KEY: root.rstrip("/")}
    if root != "/" and path.startswith(f"{root}/") and raw.startswith(f"{root}/".encode()):
        below |= {"path": path[len(root) :], "raw_path": raw[len(root.encode()) :]}
    return below


def _send_with_id(send: Send, state: RequestState, message: Message) -> Awaitable[None]:
    """No coroutine of its own: that is 1 % of what a chunk costs."""
    if message["type"] in _BEGINNINGS:
        state.status = message.get("status", 0)
        record = state.record
        headers = [*message["headers"], (REQUEST_ID_HEADER, record.id.encode())]
        if message["type"] != "websocket.accept":
            headers += state.cors
        if record.trace is not None and record.trace.echo is not None:
            headers.append((TRACEPARENT, record.trace.echo))
        message = {**message, "headers": headers}
    return send(message)


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in it that is not a group."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first
