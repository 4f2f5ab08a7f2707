"""The `X-Gateway-…` headers: what was decided for a request, and why."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.kv.conversations import NO_MOVE
from trio_gateway.engine.lease import Lease
from trio_gateway.engine.scheduling.events import Grant, How
from trio_gateway.models.names import Chosen
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.selection import Selection

DECISION_PREFIX = b"x-gateway-"
_NAMES = 1000  # whose text is kept

_DECISIONS = {how: (b"x-gateway-decision", how.value.encode()) for how in How}
_COUNTED = {by: (b"x-gateway-counted", by.value.encode()) for by in CountSource}
_AT_MOST = {by: (name, text + b"; at-most") for by, (name, text) in _COUNTED.items()}
_AT_ONCE = ((b"x-gateway-queue-ms", b"0"), (b"x-gateway-load-ms", b"0"))


def selection_headers(selection: Selection) -> list[Header]:
    """What is known before there is an engine."""
    headers = [
        (b"x-gateway-model", _header_text(selection.model.name)),
        (b"x-gateway-need", b"%d" % selection.need),
    ]
    if selection.prompt:
        headers.append((_COUNTED if selection.is_exact else _AT_MOST)[selection.source])
    if selection.clamped is not None and selection.answer is not None:
        limit = b"%d; asked=%d" % (selection.answer, selection.clamped)
        headers.append((b"x-gateway-answer-limit", limit))
    return headers


def choice_header(chosen: Chosen) -> Header:
    """Which choice it was, and why this model."""
    return b"x-gateway-choice", _header_text(str(chosen))


def decision_headers(lease: Lease, allows: Callable[[str], bool]) -> list[Header]:
    """How the request came by its engine. `allows`: the models that its key may know."""
    variant = (b"x-gateway-variant", _header_text(lease.engine.variant.name))
    grant = lease.grant
    decision = _swap_header(grant, allows) if grant.evicted else _DECISIONS[grant.how]
    headers = [variant, decision]
    if lease.queue_s or lease.load_s:
        headers.append((b"x-gateway-queue-ms", b"%d" % round(lease.queue_s * 1000)))
        headers.append((b"x-gateway-load-ms", b"%d" % round(lease.load_s * 1000)))
    else:
        headers += _AT_ONCE
    if lease.kv_move != NO_MOVE:
        headers.insert(0, (b"x-gateway-kv", _kv_text(lease)))
    return headers


def _swap_header(grant: Grant, allows: Callable[[str], bool]) -> Header:
    evicted = [str(key) for key in grant.evicted if allows(key.model)]
    if not evicted or grant.how is not How.SWAPPED:
        return _DECISIONS[grant.how]
    return b"x-gateway-decision", _header_text(f"swapped; evicted={','.join(evicted)}")


def _kv_text(lease: Lease) -> bytes:
    text = b"restored=%d saved=%d" % lease.kv_move
    return text if lease.spared is None else b"%s spared=%d" % (text, lease.spared)


@lru_cache(maxsize=_NAMES)
def _header_text(name: str) -> bytes:
    """A header is ASCII: other letters are percent-encoded."""
    return (
        quote(name, safe=string.punctuation + " ").encode() if not name.isascii() else name.encode()
    )
