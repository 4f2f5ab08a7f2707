"""Refusals: the one way from an ApiError to what a client gets for it.

Whoever refuses a request, before the guard or behind it, over HTTP, in place of a WebSocket, or on
a connection whose request cannot be read, does it with a `Refusal`. So a client sees errors in the
shape of its own API wherever they come from; that shape is chosen here and nowhere else. (An error
in an answer that has begun is an event of that answer: it has its endpoint's shape.)
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import Header, Scope, Send

_CLOSE = (b"connection", b"close")
_SAYS_ANTHROPIC = b"anthropic-version"
_PATHS_OF_ANTHROPIC, _PATHS_OF_OLLAMA = "/v1/messages", "/api/"
_UPSTREAM, _OPENAI = "/upstream/", "/v1/"
# Of these, not every path is in the table of endpoints.
_BEGINNINGS_OF_LLAMACPP = ("/slots/", "/models/", "/metrics")
# Rows of OpenAI's API are llama.cpp's where they are asked for without OpenAI's prefix.
_OF_LLAMACPP = frozenset(
    path
    for row in ENDPOINTS
    for path in row.paths
    if row.family is Family.LLAMACPP
    or (row.family is Family.OPENAI and not path.startswith(_OPENAI))
)


class Refusal(NamedTuple):
    """An error as a complete answer. The names of its headers are in small letters."""

    status: int
    headers: list[Header]
    body: bytes

    async def send(self, scope: Scope, send: Send) -> None:
        """As the answer to an ASGI request, or in place of a WebSocket."""
        kind = "websocket.http" if scope["type"] == "websocket" else "http"
        start = {"type": f"{kind}.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": f"{kind}.response.body", "body": self.body})

    def as_http1(self, more: bytes = b"") -> bytes:
        """As the bytes of an HTTP/1.1 answer, for a connection that no protocol speaks on yet.
        `more`: lines of further headers, each with its end."""
        lines = [b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode())]
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join([*lines, b"%b\r\n%b" % (more, self.body)])


def refusal_in(scope: Mapping[str, Any], error: ApiError) -> Refusal:
    """For the request or the WebSocket of this scope."""
    refusal = _refusal(error, scope["path"], scope["headers"])
    if error.closes_connection or scope["type"] == "websocket":
        refusal.headers.append(_CLOSE)
    return refusal


def last_refusal(error: ApiError, path: str = "", headers: Iterable[Header] = ()) -> Refusal:
    """For an HTTP/1 connection that ends with it, and what is known of a request there."""
    refusal = _refusal(error, path, headers)
    refusal.headers.append(_CLOSE)
    return refusal


def _refusal(error: ApiError, path: str, headers: Iterable[Header]) -> Refusal:
    body = error.encode(family_of(path, {name for name, _ in headers}))
    content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    more = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers()]
    return Refusal(error.status, content + more, body)


def family_of(path: str, names: Container[bytes]) -> Family:
    """Whose client sent a request: it says so by a header, or by the path that it asks for.
    `names`: of its headers, in small letters."""
    if _SAYS_ANTHROPIC in names:
        return Family.ANTHROPIC
    return _OF_ROWS.get(path) or _family_at(path)


def _family_at(path: str) -> Family:
    if path.startswith(_UPSTREAM):
        path = _at_engine(path)
    if path == _PATHS_OF_ANTHROPIC or path.startswith(f"{_PATHS_OF_ANTHROPIC}/"):
        return Family.ANTHROPIC
    if path in _OF_LLAMACPP or path.startswith(_BEGINNINGS_OF_LLAMACPP):
        return Family.LLAMACPP
    return Family.OLLAMA if path.startswith(_PATHS_OF_OLLAMA) else Family.OPENAI


def _at_engine(path: str) -> str:
    """What an engine is asked for, behind the name of its model, which may have slashes in it."""
    for beginning in (_OPENAI, _PATHS_OF_OLLAMA, *_BEGINNINGS_OF_LLAMACPP):
        _, at, rest = path.rpartition(beginning)
        if at:
            return f"{at}{rest}"
    return f"/{path.rpartition('/')[2]}"


# Nearly every request is for one of these.
_OF_ROWS = {path: _family_at(path) for row in ENDPOINTS for path in row.paths}
