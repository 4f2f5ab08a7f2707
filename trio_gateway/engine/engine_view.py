"""EngineView: an engine as the scheduler sees it."""

from __future__ import annotations

import msgspec

from trio_gateway.engine.events import Priority, VariantFacts, VariantKey
from trio_gateway.engine.lifecycle import EngineState


class HeldLease(msgspec.Struct, frozen=True):
    granted_at: float
    priority: Priority


class EngineView(msgspec.Struct, eq=False):
    """An engine as the scheduler sees it. `leases` are the grants not yet returned, by ticket.

    `batch_waits`: an interactive demand wants its room, so batch tickets get no place.
    `closed_since`: a demand that waits since then wants its room, and only tickets that came before
    it get a place. `evicted`: what was stopped to make room for it.
    """

    id: int
    facts: VariantFacts
    context: int
    started_at: float
    places: int = 0
    state: EngineState = EngineState.STARTING
    leases: dict[int, HeldLease] = {}
    used_at: float = 0.0
    ready_at: float | None = None
    batch_waits: bool = False
    closed_since: float | None = None
    evicted: tuple[VariantKey, ...] = ()

    @property
    def key(self) -> VariantKey:
        return self.facts.key

    @property
    def serving(self) -> bool:
        """It has grants to give, now or once it is ready."""
        return self.state in (EngineState.STARTING, EngineState.READY)

    @property
    def leaving(self) -> bool:
        return self.state in (EngineState.DRAINING, EngineState.STOPPING)
