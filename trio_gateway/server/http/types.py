"""The ASGI callables and messages as types, and what a scope is made of."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

Scope = dict[str, Any]
Message = dict[str, Any]
Header = tuple[bytes, bytes]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ROOT_KEY = "trio_gateway.root_path"  # what `below_root_path` took off
REQUEST_KEY = "trio_gateway.request"  # its RequestState
# The first header of each name: many look for one or two, and few are there. To walk through all of
# them takes 0.3 µs each time, and clients send up to twenty.
FIRST_KEY = "trio_gateway.first_headers"
CYCLE_KEY = "trio_gateway.cycle"  # the Cycle
HOLD_KEY = "trio_gateway.hold"  # a WebSocket's session is told what it holds of the budget
REQUEST_ID_HEADER = b"x-gateway-request-id"
LINGER_S = 5.0  # for the rest of a body whose request is answered already
# A client may close its side once it has sent its request, and still read: `printf … | nc -N` does.
# It looks like one that is gone. So what is answered as soon as this is answered all the same.
HALF_CLOSED_S = 0.1

Address = tuple[str, int | None] | None


class Limits(NamedTuple):
    """What one connection may take. Seconds and bytes."""

    max_header_bytes: int
    header_timeout_s: float
    keep_alive_s: float
    send_timeout_s: float
    requests: int
    max_message_bytes: int  # of a WebSocket
    ping_interval_s: float | None


class Facts(NamedTuple):
    """What an app is told of a connection in each scope."""

    scheme: str
    client: Address
    server: Address
    root_path: str
    state: Mapping[str, Any]


def new_request_id() -> str:
    """What the answer, the log and a dump call a request."""
    return os.urandom(8).hex()


def first_headers(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """The first header of each name."""
    return dict(reversed(headers))


class ClientGone(Exception):
    """The client went away, or reads no more."""
