"""The Quart app: every path of the table of endpoints, and what is wrong with any other.

Of a row that is answered directly Quart has only the path: for OPTIONS, and for the methods that
the row does not take.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, cast

import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, NotFound

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.errors import ApiError, bug, shutting_down
from trio_gateway.server.handlers.call import Call, Onlookers
from trio_gateway.server.handlers.requests import Dispatcher
from trio_gateway.server.handlers.responses import error_answer
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.http.types import AsgiApp, Scope
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.relay.answer import Answer, AnswerStream

View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

LONGEST_PATH = 200


def quart_app(
    closing: trio.Event, dispatcher: Callable[[], Dispatcher], onlookers: Onlookers
) -> AsgiApp:
    """To make its routes takes 30 ms of CPU, in which nothing else is done: so it outlives reloads,
    and asks for the dispatcher that is in force."""
    app = QuartTrio("trio_gateway", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # its default cuts a stream after 60 s, in silence
    app.config["MAX_CONTENT_LENGTH"] = None  # a request's body is its Upload, with limits there
    _add_routes(app, dispatcher, onlookers)

    @app.before_request
    async def refuse_while_closing() -> Response | None:
        return _refusal(shutting_down()) if closing.is_set() else None

    @app.errorhandler(HTTPException)
    async def on_http_error(error: HTTPException) -> Response:
        return _refusal(_as_api_error(request.path, error))

    @app.errorhandler(Exception)
    async def on_bug(error: Exception) -> Response:
        log.error("a bug in the gateway; please report it", exc_info=error)
        return _refusal(bug(error))

    return app  # type: ignore[return-value]


def _add_routes(app: QuartTrio, dispatcher: Callable[[], Dispatcher], onlookers: Onlookers) -> None:
    """HEAD goes with GET, and OPTIONS answers with what a path allows: Quart adds both."""
    app.url_map.merge_slashes = False  # a redirect does not answer a client's POST
    for endpoint in ENDPOINTS:
        view = _answered_directly if endpoint.is_direct else _view(endpoint, dispatcher, onlookers)
        for path in endpoint.paths:
            rule = path.replace("{model}/{rest}", "<path:rest>").replace("{model}", "<path:model>")
            rule = rule.replace("{digest}", "<digest>").replace("{slot}", "<slot>")
            rule = rule.replace("{file}", "<path:file>").replace("{id}", "<id>")
            app.add_url_rule(rule, f"{endpoint.name} {path}", view, methods=[*endpoint.methods])


async def _answered_directly() -> Response:
    """Only a path that is written as no client should gets here."""
    raise NotFound


def _view(endpoint: Endpoint, dispatcher: Callable[[], Dispatcher], onlookers: Onlookers) -> View:
    async def view(**values: str) -> Response:
        call, current = Call(cast(Scope, request.scope), onlookers, values), dispatcher()
        handler = current.handler(endpoint)
        return _response(await current.answer(endpoint, handler, call), call.state)

    return view


# -- answers --------------------------------------------------------------------------------------


def _refusal(error: ApiError) -> Response:
    call = Call(cast(Scope, request.scope))
    return _response(error_answer(call, error), call.state)


def _response(answer: Answer, state: RequestState) -> Response:
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    if isinstance(answer.body, AnswerStream):
        state.last_words = answer.body.last_words
        body: _Body | bytes = _Body(answer.body, state.record)
    else:
        body, state.record.answer_bytes = answer.body, len(answer.body)
    return Response(body, status=answer.status, headers=Headers(text))


class _Body(ResponseBody):
    """A stream as Quart wants it."""

    def __init__(self, stream: AnswerStream, record: RequestRecord) -> None:
        self._stream, self._record = stream, record

    async def __aenter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._stream.__anext__()
        self._record.answer_bytes += len(piece)
        return piece

    async def __aexit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.aclose()


# -- errors ---------------------------------------------------------------------------------------


def _as_api_error(path: str, error: HTTPException) -> ApiError:
    """An error that Quart finds by itself."""
    match error.code:
        case 404:
            return ApiError(404, f"there is no such path{_near_path(path)}", code="unknown_path")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            message, allow = f"this path accepts only {allowed}", [("Allow", allowed)]
            return ApiError(405, message, code="method_not_allowed", headers=allow)
    return ApiError(error.code or 500, error.description or error.name)


def _near_path(path: str) -> str:
    """A hint at the path that was meant, as the end of a message."""
    known = [
        known
        for endpoint in ENDPOINTS
        for known in endpoint.paths
        if "{" not in known and known != "/"
    ]
    near = difflib.get_close_matches(path[:LONGEST_PATH], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; GET /openapi.json lists every path"
