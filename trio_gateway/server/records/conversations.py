"""How requests of one conversation are told: by name, or by how they begin. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence

from trio_gateway.models.cache_breaks import Thread

# The text of a conversation is nobody's business: each run has digests of its own.
_SALT = secrets.token_bytes(16)
_PLAIN = re.compile(rb"[A-Za-z0-9_.:@/+=-]{1,64}")


class SessionHeaders:
    """`names`: of headers that clients name a conversation with; the first of them counts."""

    def __init__(self, names: Sequence[str]) -> None:
        self._ranked = [name.lower().encode() for name in names]
        self._names = frozenset(self._ranked)

    def session(self, headers: Mapping[bytes, bytes]) -> str | None:
        """What a request's client calls its conversation; None: it does not say. `headers`: the
        first of each name."""
        if self._names.isdisjoint(headers):
            return None
        return next((_said(value) for name in self._ranked if (value := headers.get(name))), None)


def _said(value: bytes) -> str:
    """As it was sent, if it is an id; of anything else a digest."""
    return value.decode("ascii") if _PLAIN.fullmatch(value) else _digest(value)


def named_id(key: str | None, name: str) -> str:
    """Of a conversation that a client with this key calls so: other keys may use the same name.
    A `session` has no spaces, so no two keys and names make the same id."""
    return name if key is None else f"{key}: {name}"


def thread_id(owner: str, thread: Thread) -> str:
    """Of a conversation that only its beginning tells. Nobody else's has the same."""
    return _digest(b"%b\0%b\0%d" % (owner.encode(), thread.beginning, thread.number))


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, key=_SALT, digest_size=6).hexdigest()
