"""PeerLoad: what another gateway has to do, by its own words. Pure."""

from __future__ import annotations

import msgspec

PATH = "/gateway/queue"


class PeerLoad(msgspec.Struct, frozen=True):
    """`waiting`: requests for an engine; `running`: those that have one. `others`: of both, those
    that are not ours."""

    waiting: int
    running: int
    others: int


class _Queue(msgspec.Struct):
    waiting: int | None = None
    running: int = 0
    tickets: list[msgspec.Raw] | None = None  # of earlier versions, which say nothing else


def peer_load(answer: bytes, ours: int) -> PeerLoad | None:
    """What its queue says; None: that cannot be read. `ours`: requests of ours that it has."""
    try:
        queue = msgspec.json.decode(answer, type=_Queue)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if queue.waiting is None and queue.tickets is None:
        return None
    waiting = len(queue.tickets or ()) if queue.waiting is None else max(queue.waiting, 0)
    running = max(queue.running, 0)
    return PeerLoad(waiting, running, max(waiting + running - ours, 0))
