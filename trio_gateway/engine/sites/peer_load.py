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
    tickets: list[msgspec.Raw]
    running: int = 0  # earlier versions do not say


def peer_load(answer: bytes, ours: int) -> PeerLoad | None:
    """What its queue says; None: that cannot be read. `ours`: requests of ours that it has."""
    try:
        queue = msgspec.json.decode(answer, type=_Queue)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    waiting, running = len(queue.tickets), max(queue.running, 0)
    return PeerLoad(waiting, running, max(waiting + running - ours, 0))
