"""Who asks, and how urgent it is: what the scheduler is told of a request's sender."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, NamedTuple, cast

from quart import Request

from trio_gateway.config.priority import Priority
from trio_gateway.server.access.permissions import permissions_of
from trio_gateway.server.api.errors import ApiError

PRIORITY_HEADER = "X-Gateway-Priority"
_KEY_HEADERS = ("Authorization", "X-Api-Key")
# A key is a secret, and the queue's page shows clients: each run has digests of its own.
_SALT = secrets.token_bytes(16)


class Caller(NamedTuple):
    """`client` is an API key's name. Where the gateway has no keys: the digest of what the client
    sends as one, or the address that it calls from."""

    client: str
    priority: Priority


def caller_of(request: Request) -> Caller:
    """Raises ApiError: 400 for an unknown priority."""
    permissions = permissions_of(cast(dict[str, Any], request.scope))
    asked = _priority(request.headers.get(PRIORITY_HEADER))
    return Caller(permissions.key or _client(request), permissions.priority_of(asked))


def _client(request: Request) -> str:
    for name in _KEY_HEADERS:
        if key := request.headers.get(name):
            digest = hashlib.blake2b(key.encode("utf-8", "replace"), key=_SALT, digest_size=4)
            return f"key {digest.hexdigest()}"
    return request.remote_addr or "unknown"


def _priority(value: str | None) -> Priority | None:
    if value is None:
        return None
    priority = Priority.from_word(value.strip().lower())
    if priority is None:
        known = " or ".join(p.word for p in Priority)
        message = f'{PRIORITY_HEADER} is "{value[:40]}"; expected {known}'
        raise ApiError(400, message, code="invalid_priority")
    return priority
