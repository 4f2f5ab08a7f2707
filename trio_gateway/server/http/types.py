"""The ASGI callables and messages as types, and what the gateway puts into a scope."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Header = tuple[bytes, bytes]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_KEY = "trio_gateway.request"  # its RequestState
BODY_KEY = "trio_gateway.body"  # `Cycle.receive_now`
REQUEST_ID_HEADER = b"x-gateway-request-id"
LINGER_S = 5.0  # for the rest of a body whose request is answered already
# A client may close its side once it has sent its request, and still read: `printf … | nc -N` does.
# It looks like one that is gone. So what is answered as soon as this is answered all the same.
HALF_CLOSED_S = 0.1


def new_request_id() -> str:
    """What the answer, the log and a dump call a request."""
    return secrets.token_hex(8)


class ClientGone(Exception):
    """The client went away, or reads no more."""
