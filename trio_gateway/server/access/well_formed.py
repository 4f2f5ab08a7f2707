"""Requests that the gateway does not take whoever sends them: checked before the guard sees them.

What cannot be read as HTTP/1.1 in one way only does not come this far, see `server/http/http1.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import FIRST_KEY, Header, Scope


def fault_of(scope: Scope) -> ApiError | None:
    """What is wrong with a request's head, if anything. Pure."""
    path = scope["path"]
    if b"content-encoding" in scope[FIRST_KEY] and _is_compressed(scope["headers"]):
        message = "the body is compressed (Content-Encoding); send it uncompressed"
        return _fault(415, message, "compressed_body")
    if not path.startswith(("/", "*")):
        message = "the path must begin with /; requests for other hosts are not forwarded"
        return _fault(400, message, "invalid_path")
    if path.startswith("//"):
        return _fault(404, "the path begins with //; one slash is enough", "unknown_path")
    return None


def _is_compressed(headers: Sequence[Header]) -> bool:
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    return any(coding not in (b"", b"identity") for coding in codings)


def _fault(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code=code, closes_connection=True)
