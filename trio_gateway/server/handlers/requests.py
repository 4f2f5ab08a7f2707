"""Requests that an engine answers: DirectAnswers finds their row, RequestHandler takes them apart.

Quart's dispatch and its Response take 200 µs of CPU for each request, where all the rest takes
about 500, and two tasks. Which rows are answered here is said by `Endpoint.is_direct`; everything
else (other paths, other methods of the same paths, OPTIONS) is Quart's. A row's `handler` is the
name of a method; the Dispatcher calls it for either way, and makes an answer of what goes wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from trio_gateway.engine.scheduling.variants import ModelGone
from trio_gateway.models.names import Wanted
from trio_gateway.server.access.forwarded import conversation_in, id_in
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.errors import ApiError, bug, model_not_found, shutting_down
from trio_gateway.server.api.own_form import (
    OPENAI_FORMS,
    OWN_FORMS,
    gives_token_vectors,
    is_own_form,
)
from trio_gateway.server.api.request_body import missing_model, open_request
from trio_gateway.server.handlers.call import Call, Onlookers
from trio_gateway.server.handlers.responses import error_answer
from trio_gateway.server.http.scopes import RequestState, TornStream
from trio_gateway.server.http.types import (
    FIRST_KEY,
    AsgiApp,
    ClientGone,
    Header,
    Receive,
    Scope,
    Send,
)
from trio_gateway.server.reading.readers import Readers, light_body
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.relay.answer import Answer, AnswerStream, without_length
from trio_gateway.server.relay.ask import Ask
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay

Handler = Callable[[Endpoint, Call], Awaitable[Answer]]

log = logging.getLogger(__name__)


class Dispatcher:
    """Each row is served by the first of the handlers that has its method. While the gateway
    closes, none is."""

    def __init__(self, closing: trio.Event, book: RequestBook, *handlers: object) -> None:
        self._closing, self._book, self._handlers = closing, book, handlers

    def handler(self, endpoint: Endpoint) -> Handler:
        for handler in self._handlers:
            if (method := getattr(handler, endpoint.handler, None)) is not None:
                return method  # type: ignore[no-any-return]
        raise AssertionError(f"no handler has {endpoint.handler}")

    async def answer(self, endpoint: Endpoint, handler: Handler, call: Call) -> Answer:
        """What goes wrong is an answer, too, and so is a bug.

        Raises:
            TornStream, ClientGone: the answer has begun, and cannot go on.
        """
        if endpoint.needs_engine:
            state, first = call.state, call.scope[FIRST_KEY]
            by = call.permissions
            as_id = conversation = None
            if by.person is not None:
                as_id, conversation = id_in(first), conversation_in(first)
            self._book.begin(
                state.record, endpoint, by.key, state.cancel, first, as_id, conversation
            )
        try:
            if self._closing.is_set():
                raise shutting_down()
            return await handler(endpoint, call)
        except ApiError as error:
            return error_answer(call, error)
        except ModelGone as error:
            return error_answer(call, model_not_found(str(error)))
        except (TornStream, ClientGone):
            raise
        except Exception as error:
            log.error("a bug in the gateway; please report it", exc_info=error)
            return error_answer(call, bug(error))


class DirectAnswers:
    """An ASGI app for HTTP requests; `others` gets those that are not answered here."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        onlookers: Onlookers,
        others: AsgiApp,
    ) -> None:
        self._dispatcher, self._onlookers, self._others = dispatcher, onlookers, others
        self._rows: dict[tuple[str, str], tuple[Endpoint, Handler]] = {
            (path, method): (endpoint, dispatcher.handler(endpoint))
            for endpoint in ENDPOINTS
            if endpoint.is_direct
            for path in endpoint.paths
            for method in methods_of(endpoint)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = self._rows.get((scope["path"], scope["method"]))
        if row is None:
            # Quart would take it off the path, and find an endpoint that the guard has not seen.
            scope["root_path"] = ""
            await self._others(scope, receive, send)
            return
        endpoint, handler = row
        call = Call(scope, self._onlookers, send=send)
        answer = await self._dispatcher.answer(endpoint, handler, call)
        body = answer.body
        if not isinstance(body, bytes):
            await _send_stream(answer.status, answer.headers, body, send, call.state)
            return
        call.state.record.answer_bytes = len(body)
        # Whatever an engine said of it: where an answer ends is for the gateway to say.
        headers, length = answer.headers, (b"content-length", b"%d" % len(body))
        if length not in headers:
            headers = [*without_length(headers), length]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def methods_of(endpoint: Endpoint) -> tuple[str, ...]:
    """HEAD goes with GET."""
    return (*endpoint.methods, "HEAD") if "GET" in endpoint.methods else endpoint.methods


async def _send_stream(
    status: int, headers: list[Header], stream: AnswerStream, send: Send, state: RequestState
) -> None:
    """What one read gave is one message, and the last of them is the end, if that is known by
    then."""
    state.last_words, size = stream.last_words, 0
    if not stream.is_begun:
        await send({"type": "http.response.start", "status": status, "headers": headers})
    try:
        async for piece in stream:
            more = not stream.is_over
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            size += len(piece)
            if not more:
                return
    finally:
        state.record.answer_bytes = size
        await stream.aclose()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class RequestHandler:
    """Takes a request apart, and has the Relay answer it."""

    def __init__(self, preparer: Preparer, relay: Relay, readers: Readers) -> None:
        self._preparer, self._relay, self._readers = preparer, relay, readers

    async def handle_relayed(self, endpoint: Endpoint, call: Call) -> Answer:
        pieces = await call.read_pieces()
        call.begin_dump(endpoint, pieces)
        if (data := light_body(pieces)) is None:
            ask = await self._prepare_large(endpoint, call, pieces)
        else:
            request = open_request(data, endpoint)
            ask = await self._preparer.prepare(call.sender(endpoint), endpoint, request)
        return await self._relay.respond(ask)

    async def _prepare_large(self, endpoint: Endpoint, call: Call, pieces: Sequence[bytes]) -> Ask:
        sender = call.sender(endpoint)
        async with self._readers.opened(pieces, endpoint.name, sender.state.hold.client) as opened:
            if OWN_FORMS.get(call.scope["path"]) is endpoint:
                endpoint = self._row_of(call, endpoint, opened.model, is_own=opened.is_own_form)
            name = opened.model
            wanted = self._preparer.admitted(endpoint, name, sender.permissions)
            if wanted.chosen is None:
                read, _ = await opened.read(wanted.model)
        if wanted.chosen is None:
            return await self._preparer.prepare_large(sender, endpoint, wanted, name, read)

        async def prepare(wanted: Wanted) -> Ask:
            """It is read once more for each model, as they have rules of their own."""
            async with self._readers.opened(pieces, endpoint.name, client) as opened:
                read, _ = await opened.read(wanted.model)
            return await self._preparer.prepare_large(sender, endpoint, wanted, name, read)

        client = sender.state.hold.client
        return await self._preparer.prepare_chosen(sender, endpoint, name, {}, prepare)

    # -- /completions and /embeddings ---------------------------------------------------------

    async def handle_either_form(self, endpoint: Endpoint, call: Call) -> Answer:
        """Without `/v1` a body may be in llama.cpp's own form: see api/own_form.py."""
        own = OWN_FORMS.get(call.scope["path"])
        if own is None:
            return await self.handle_relayed(endpoint, call)
        pieces = await call.read_pieces()
        call.begin_dump(endpoint, pieces)
        if (data := light_body(pieces)) is None:
            ask = await self._prepare_large(own, call, pieces)
        else:
            request = open_request(data, own)
            is_own = is_own_form(own, request.model, request.members)
            row = self._row_of(call, own, request.model, is_own=is_own)
            request = msgspec.structs.replace(request, endpoint=row)
            ask = await self._preparer.prepare(call.sender(row), row, request)
        return await self._relay.respond(ask)

    def _row_of(self, call: Call, own: Endpoint, name: str | None, *, is_own: bool) -> Endpoint:
        """Which row answers a body: `own`, or OpenAI's.

        Raises:
            ApiError: as `Preparer.find`; 400, it has to name a model.
        """
        model = self._preparer.find(name, call.permissions, own).model
        if self._preparer.is_served(own, model) and (is_own or gives_token_vectors(own, model)):
            return own
        if name is None:
            raise missing_model()
        return OPENAI_FORMS[own.name]

    async def handle_realtime(self, endpoint: Endpoint, call: Call) -> Answer:
        """One that comes with a WebSocket is WebSocketRelay's."""
        message = f"{endpoint.name} is a WebSocket; connect to it with a WebSocket client"
        upgrade = [("Upgrade", "websocket")]
        raise ApiError(426, message, code="websocket_needed", headers=upgrade)
