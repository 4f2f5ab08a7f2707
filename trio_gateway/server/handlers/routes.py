"""The Quart app: a route for each row of the table of endpoints, and what happens to an error."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from trio_gateway.server.api.endpoints import ENDPOINTS, Body, Endpoint
from trio_gateway.server.api.errors import ApiError, bug, shutting_down
from trio_gateway.server.handlers.responses import respond_to_error
from trio_gateway.server.http.scopes import state_of
from trio_gateway.server.http.types import AsgiApp

Handler = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

LONGEST_PATH = 200


def quart_app(closing: trio.Event, *handlers: object) -> AsgiApp:
    """Each row is served by the first of the handlers that has its method."""
    app = QuartTrio("trio_gateway", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # its default cuts a stream after 60 s, in silence
    app.config["MAX_CONTENT_LENGTH"] = None  # a request's body is its Upload, with limits there
    _add_routes(app, *handlers)

    @app.before_request
    async def refuse_while_closing() -> Response | None:
        return respond_to_error(shutting_down()) if closing.is_set() else None

    @app.errorhandler(ApiError)
    async def on_refusal(error: ApiError) -> Response:
        return respond_to_error(error)

    @app.errorhandler(HTTPException)
    async def on_http_error(error: HTTPException) -> Response:
        return respond_to_error(_as_api_error(request.path, error))

    @app.errorhandler(Exception)
    async def on_bug(error: Exception) -> Response:
        log.error("a bug in the gateway; please report it", exc_info=error)
        return respond_to_error(bug(error))

    return app  # type: ignore[return-value]


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


def _add_routes(app: QuartTrio, *handlers: object) -> None:
    """A route for each path of each endpoint, to the method of the first handler that has it.

    HEAD goes with GET, and OPTIONS answers with what a path allows: Quart adds both.
    """
    app.url_map.merge_slashes = False  # a redirect does not answer a client's POST
    for endpoint in ENDPOINTS:
        view = _view(endpoint, _handler(endpoint, handlers))
        for path in endpoint.paths:
            rule = path.replace("{model}/{rest}", "<path:rest>").replace("{model}", "<path:model>")
            rule = rule.replace("{digest}", "<digest>")
            app.add_url_rule(rule, f"{endpoint.name} {path}", view, methods=[*endpoint.methods])


def _view(endpoint: Endpoint, handler: Handler) -> Handler:
    if endpoint.body is not Body.NONE:
        return partial(handler, endpoint)

    async def without_body(**values: str) -> Response:
        state_of(request).upload.leave_to_quart()
        return await handler(endpoint, **values)

    return without_body


def _handler(endpoint: Endpoint, handlers: tuple[object, ...]) -> Handler:
    for handler in handlers:
        if (method := getattr(handler, endpoint.handler, None)) is not None:
            return method  # type: ignore[no-any-return]
    raise AssertionError(f"no handler has {endpoint.handler}")


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
