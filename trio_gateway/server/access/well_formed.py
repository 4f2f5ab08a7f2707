"""WellFormed: refuses requests that different readers would read differently. ASGI middleware.

h11 takes them. The gateway itself has no trouble with most, but a proxy before it may take the end
of one for another request, or look for its path in another place.
"""

from __future__ import annotations

import re

import trio

from trio_gateway.server.api.endpoints import family_of
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import LINGER_S, AsgiApp, Receive, Scope, Send

_KNOWN_VERSIONS = ("1.0", "1.1", "2", "3")
# As h11 has it. Over HTTP/2 a blank comes through, and ends the target on its way to an engine.
_TARGET = re.compile(rb"[\x21-\x7e]*")


class WellFormed:
    """Passes on what is well-formed; the rest gets an error, and its connection is closed."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = fault_of(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        # So that its client, still sending, sees the answer (repair D of scopes.py).
        with trio.move_on_after(LINGER_S):
            while (await receive()).get("more_body"):
                pass
        body = error.encode(family_of(scope["path"]))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if scope["http_version"] in ("2", "3"):
            del headers[-1]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def fault_of(scope: Scope) -> ApiError | None:
    """What is wrong with a request's head, if anything is. Pure."""
    version, path = scope["http_version"], scope["path"]
    if version not in _KNOWN_VERSIONS:
        return ApiError(505, f"HTTP/{version} is not known here; use 1.1", code="invalid_http")
    if not (_TARGET.fullmatch(scope["raw_path"]) and _TARGET.fullmatch(scope["query_string"])):
        message = "the path or the query has a character that must be percent-encoded"
        return ApiError(400, message, code="invalid_path")
    names = {name.lower(): value for name, value in scope["headers"]}
    if b"transfer-encoding" in names and b"content-length" in names:
        message = "the body's length is there twice: Content-Length and Transfer-Encoding"
        return ApiError(400, message, code="invalid_http")
    coding = names.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        message = "the body is compressed (Content-Encoding); send it as it is"
        return ApiError(415, message, code="compressed_body")
    if not path.startswith(("/", "*")):
        message = "the path must begin with /; requests for other hosts are not passed on"
        return ApiError(400, message, code="invalid_path")
    if path.startswith("//"):
        message = "the path begins with //; one is enough"
        return ApiError(404, message, code="unknown_path")
    return None
