"""Wait: what a request waits for, in words."""

from __future__ import annotations

import msgspec
import trio

from trio_gateway.engine.lease import LeaseRequest
from trio_gateway.engine.scheduling.sentence import sentence_of
from trio_gateway.server.access.permissions import EVERYTHING, Permissions


class Wait(msgspec.Struct):
    """Of one request: its ticket, then the engine's first byte. `permissions`: of its key, which
    may not know all models."""

    permissions: Permissions = EVERYTHING
    request: LeaseRequest | None = None
    engine_asked_at: float | None = None

    def sentence(self) -> str:
        waiting = self.request.waiting() if self.request is not None else None
        if waiting is not None:
            return sentence_of(waiting, self.permissions.allows)
        waited_s = trio.current_time() - (self.engine_asked_at or trio.current_time())
        return f"waits for the first token ({waited_s:.0f} s so far)"
