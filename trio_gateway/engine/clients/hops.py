"""Which gateways a request has passed, in a header that each adds itself to, so that it ends.

Pure, but for the id of this run.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence

from trio_gateway.engine.http.exchange import Header

VIA = b"x-gateway-via"
HOPS_MAX = 8  # each costs a lease; nobody has so many gateways in a row on purpose
# Of this run of this gateway. Random: it says nothing of the machine.
THIS_RUN = secrets.token_hex(8)

_HOP = re.compile(rb"[0-9A-Za-z_-]{1,32}")


def hops_in(values: Iterable[bytes]) -> list[str]:
    """The gateways that these headers name, in the order in which they were passed.

    Raises:
        ValueError: they name none, or something that is not a gateway's id.
    """
    words = [word.strip() for value in values for word in value.split(b",")]
    if not all(map(_HOP.fullmatch, words)):
        raise ValueError(f"{VIA.decode()} is a list of ids, with commas between them")
    return [word.decode() for word in words]


def with_this_run(headers: Sequence[Header]) -> list[Header]:
    """As a request is sent on: this gateway comes last. One of a client's own begins the list."""
    before = [value for name, value in headers if name == VIA]
    others = [header for header in headers if header[0] != VIA]
    return [*others, (VIA, b", ".join([*before, THIS_RUN.encode()]))]
