"""The `X-Gateway-…` headers: what was decided for a request, and why."""

from __future__ import annotations

import string
from collections.abc import Callable
from urllib.parse import quote

from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.lease import Lease
from trio_gateway.engine.scheduling.events import How
from trio_gateway.models.names import Chosen
from trio_gateway.models.selection import Selection

DECISION_PREFIX = b"x-gateway-"


def selection_headers(selection: Selection) -> list[Header]:
    """What is known before there is an engine."""
    headers = [
        (b"x-gateway-model", _header_text(selection.model.name)),
        (b"x-gateway-need", b"%d" % selection.need),
    ]
    if selection.prompt:
        at_most = b"" if selection.is_exact else b"; at-most"
        headers.append((b"x-gateway-counted", selection.source.value.encode() + at_most))
    if selection.clamped is not None and selection.answer is not None:
        limit = b"%d; asked=%d" % (selection.answer, selection.clamped)
        headers.append((b"x-gateway-answer-limit", limit))
    return headers


def choice_header(chosen: Chosen) -> Header:
    """Which choice it was, and why this model."""
    return b"x-gateway-choice", _header_text(str(chosen))


def decision_headers(lease: Lease, allows: Callable[[str], bool]) -> list[Header]:
    """How the request came by its engine. `allows`: the models that its key may know."""
    decision, grant = lease.grant.how.value, lease.grant
    if grant.how is How.SWAPPED:
        evicted = [str(key) for key in grant.evicted if allows(key.model)]
        if evicted:
            decision += "; evicted=" + ",".join(evicted)
    headers = [(b"x-gateway-kv", _kv_text(lease))] if any(lease.kv_move) else []
    return [
        *headers,
        (b"x-gateway-variant", _header_text(lease.engine.variant.name)),
        (b"x-gateway-decision", _header_text(decision)),
        (b"x-gateway-queue-ms", b"%d" % round(lease.queue_s * 1000)),
        (b"x-gateway-load-ms", b"%d" % round(lease.load_s * 1000)),
    ]


def _kv_text(lease: Lease) -> bytes:
    text = b"restored=%d saved=%d" % lease.kv_move
    return text if lease.spared is None else b"%s spared=%d" % (text, lease.spared)


def _header_text(name: str) -> bytes:
    """A header is ASCII: other letters are percent-encoded."""
    return (
        quote(name, safe=string.punctuation + " ").encode() if not name.isascii() else name.encode()
    )
