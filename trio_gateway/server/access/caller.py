"""Who asks, and how urgent it is: what the scheduler is told of a request's sender."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.config.priority import Priority
from trio_gateway.server.access.permissions import PERMISSIONS_KEY, Permissions
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import FIRST_KEY

PRIORITY_HEADER = "X-Gateway-Priority"
KEEPALIVE_HEADER = "X-Gateway-Keepalive"
_PRIORITY = PRIORITY_HEADER.lower().encode()
_KEEPALIVE = KEEPALIVE_HEADER.lower().encode()
_LOCAL = "<local>"  # over a Unix socket
# A key is a secret, and the queue's page shows clients: each run has digests of its own.
_SALT = secrets.token_bytes(16)


class Caller(msgspec.Struct, frozen=True):
    """`client` is an API key's name, with that of a person behind it: `front/alice`. Where the
    gateway has no keys: the digest of what the client sends as one, or the address that it calls
    from. `keepalive`: None: as the configuration says.
    """

    client: str
    priority: Priority
    keepalive: KeepaliveStyle | None = None


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Who sent the request, or opens the WebSocket, of this scope.

    Raises:
        ApiError: 400, for an unknown priority or style of keepalive.
    """
    permissions: Permissions = scope[PERMISSIONS_KEY]
    said: Mapping[bytes, bytes] = scope[FIRST_KEY]
    priority, keepalive = permissions.priority, None
    if _PRIORITY in said:
        priority = permissions.priority_of(_priority(said[_PRIORITY]))
    if _KEEPALIVE in said:
        keepalive = _keepalive(said[_KEEPALIVE])
    return Caller(permissions.client or _client(scope, said), priority, keepalive)


def _client(scope: Mapping[str, Any], said: Mapping[bytes, bytes]) -> str:
    if key := said.get(b"authorization") or said.get(b"x-api-key"):
        return f"key {hashlib.blake2b(key, key=_SALT, digest_size=4).hexdigest()}"
    address: str = (scope.get("client") or (_LOCAL,))[0]
    return address


def _priority(said: bytes) -> Priority:
    value = said.decode("latin-1")
    priority = Priority.from_word(value.strip().lower())
    if priority is None:
        known = " or ".join(p.word for p in Priority)
        message = f'{PRIORITY_HEADER} is "{value[:40]}"; expected {known}'
        raise ApiError(400, message, code="invalid_priority")
    return priority


def _keepalive(said: bytes) -> KeepaliveStyle:
    value = said.decode("latin-1")
    style = KeepaliveStyle.from_word(value.strip().lower())
    if style is None:
        known = " or ".join(s.value for s in KeepaliveStyle)
        message = f'{KEEPALIVE_HEADER} is "{value[:40]}"; expected {known}'
        raise ApiError(400, message, code="invalid_keepalive")
    return style
