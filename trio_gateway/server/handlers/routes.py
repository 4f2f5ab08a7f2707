"""The table of endpoints as routes of the Quart app."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from functools import partial

from quart import Response
from quart_trio import QuartTrio

from trio_gateway.server.api.endpoints import ENDPOINTS, Endpoint

LONGEST_PATH = 200


def add_routes(app: QuartTrio, *handlers: object) -> None:
    """A route for each path of each endpoint, to the method of the first handler that has it.

    HEAD goes with GET, and OPTIONS answers with what a path allows: Quart adds both.
    """
    app.url_map.merge_slashes = False  # a redirect is no answer to a client's POST
    for endpoint in ENDPOINTS:
        view = partial(_handler(endpoint, handlers), endpoint)
        for path in endpoint.paths:
            rule = path.replace("{model}/{rest}", "<path:rest>").replace("{model}", "<path:model>")
            rule = rule.replace("{digest}", "<digest>")
            app.add_url_rule(rule, f"{endpoint.name} {path}", view, methods=[*endpoint.methods])


def _handler(
    endpoint: Endpoint, handlers: tuple[object, ...]
) -> Callable[..., Awaitable[Response]]:
    for handler in handlers:
        if (method := getattr(handler, endpoint.handler, None)) is not None:
            return method  # type: ignore[no-any-return]
    raise AssertionError(f"no handler has {endpoint.handler}")


def near_path(path: str) -> str:
    """A hint at the path that is meant, as the end of a message."""
    known = [
        known
        for endpoint in ENDPOINTS
        for known in endpoint.paths
        if "{" not in known and known != "/"
    ]
    near = difflib.get_close_matches(path[:LONGEST_PATH], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; GET /openapi.json lists what there is"
