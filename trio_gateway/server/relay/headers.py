"""The `X-Gateway-…` headers: what was decided for a request, and why."""

from __future__ import annotations

import string
from urllib.parse import quote

from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.kv.conversations import KvMove
from trio_gateway.engine.lease import Lease
from trio_gateway.engine.scheduling.events import How
from trio_gateway.models.model_selector import Selection


def selection_headers(selection: Selection) -> list[Header]:
    """What is known before there is an engine."""
    return [
        (b"X-Gateway-Model", _header_text(selection.model.name)),
        (b"X-Gateway-Need", b"%d" % selection.need),
    ]


def decision_headers(lease: Lease) -> list[Header]:
    """How the request came by its engine."""
    decision = lease.grant.how.value
    if lease.grant.how is How.SWAPPED:
        decision += "; evicted=" + ",".join(map(str, lease.grant.evicted))
    headers = [(b"X-Gateway-Kv", _kv_text(lease.kv_move))] if any(lease.kv_move) else []
    return [
        *headers,
        (b"X-Gateway-Variant", _header_text(lease.engine.variant.name)),
        (b"X-Gateway-Decision", _header_text(decision)),
        (b"X-Gateway-Queue-Ms", b"%d" % round(lease.queue_s * 1000)),
        (b"X-Gateway-Load-Ms", b"%d" % round(lease.load_s * 1000)),
    ]


def _kv_text(move: KvMove) -> bytes:
    return b"restored=%d saved=%d" % move


def _header_text(name: str) -> bytes:
    """A header is ASCII: other letters are percent-encoded."""
    return (
        quote(name, safe=string.punctuation + " ").encode() if not name.isascii() else name.encode()
    )
