"""Requests that different readers would read differently are refused, before the guard sees them.

h11 takes them. The gateway itself copes with most, but a proxy in front of it may take the end
of one for another request, or look for its path in another place.
"""

from __future__ import annotations

import re

import trio

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.types import LINGER_S, REQUEST_KEY, Scope, Send

_KNOWN_VERSIONS = ("1.0", "1.1", "2", "3")
# As h11 has it. Over HTTP/2 a blank comes through, and ends the target on its way to an engine.
_TARGET = re.compile(rb"[\x21-\x7e]*")


def fault_of(scope: Scope) -> ApiError | None:
    """What is wrong with a request's head, if anything. Pure."""
    version, path = scope["http_version"], scope["path"]
    if version not in _KNOWN_VERSIONS:
        return _fault(505, f"HTTP/{version} is not supported; use 1.1", "invalid_http")
    if not (_TARGET.fullmatch(scope["raw_path"]) and _TARGET.fullmatch(scope["query_string"])):
        message = "the path or the query contains a character that must be percent-encoded"
        return _fault(400, message, "invalid_path")
    names = {name.lower(): value for name, value in scope["headers"]}
    if b"transfer-encoding" in names and b"content-length" in names:
        message = "the body's length is given twice: Content-Length and Transfer-Encoding"
        return _fault(400, message, "invalid_http")
    coding = names.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        message = "the body is compressed (Content-Encoding); send it uncompressed"
        return _fault(415, message, "compressed_body")
    if not path.startswith(("/", "*")):
        message = "the path must begin with /; requests for other hosts are not forwarded"
        return _fault(400, message, "invalid_path")
    if path.startswith("//"):
        return _fault(404, "the path begins with //; one slash is enough", "unknown_path")
    return None


async def refuse_malformed(scope: Scope, fault: ApiError, send: Send) -> None:
    """Answer with the fault, and have the connection closed."""
    # First: once an answer says that it closes the connection, hypercorn takes what is still
    # being sent for an error, and cuts the answer off.
    with trio.move_on_after(LINGER_S):
        await scope[REQUEST_KEY].upload.drain()
    await refusal_in(scope, fault).send(scope, send)


def _fault(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code=code, closes_connection=True)
