"""The ASGI callables and messages as types, and what the gateway puts into a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Header = tuple[bytes, bytes]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_KEY = "trio_gateway.request"  # its RequestState
TERMINATED_KEY = "trio_gateway.terminated"  # in the scope's state: hypercorn's own shutdown
REQUEST_ID_HEADER = b"x-gateway-request-id"
LINGER_S = 5.0  # for the rest of a body whose request is answered already


class ClientGone(Exception):
    """The client went away, or reads no more."""
