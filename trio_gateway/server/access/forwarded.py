"""What a gateway says of a request that it forwards: who asks, and how it calls the request. Pure.

It counts where the key that it has may speak for others (`forwards`). What cannot be used is as if
it were not there: the request is then the gateway's own.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from trio_gateway.engine.clients.headers import AFFINITY

CLIENT_HEADER = b"x-gateway-client"
REQUEST_ID_HEADER = b"x-request-id"
NAME_MAX = 128  # characters; with each gateway on the way the name of its key comes in front

_ID = re.compile(rb"[0-9a-f]{16}")  # as `new_request_id` makes them, and `affinity_key`


def person_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The name of whoever asks. `headers`: the first of each name."""
    said = headers.get(CLIENT_HEADER)
    if said is None:
        return None
    try:
        name = unquote_to_bytes(said).decode().strip()
    except UnicodeDecodeError:
        return None
    return name if 0 < len(name) <= NAME_MAX and name.isprintable() else None


def id_in(headers: Mapping[bytes, bytes]) -> str | None:
    """What the request is called in that gateway's log, if that is an id of ours."""
    said = headers.get(REQUEST_ID_HEADER, b"")
    return said.decode() if _ID.fullmatch(said) else None


def conversation_in(headers: Mapping[bytes, bytes]) -> str | None:
    """What that gateway tells the request's conversation by: the name that its client has for it
    does not come through."""
    said = headers.get(AFFINITY, b"")
    return said.decode() if _ID.fullmatch(said) else None


def as_header(client: str) -> bytes:
    """A client's name, percent-encoded where it is not ASCII. Of one that is too long the end is
    left out: names begin with where they are from."""
    safe = string.punctuation.replace("%", "") + " "
    return quote(client[:NAME_MAX], safe=safe).encode()
