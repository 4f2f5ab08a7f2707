"""EngineView: an engine as the scheduler sees it."""

from __future__ import annotations

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import (
    Cause,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.memory_events import (
    Places,
)
from trio_gateway.engine.scheduling.pool_memory import EVERYWHERE
from trio_gateway.engine.scheduling.progress import AnswerProgress
from trio_gateway.engine.scheduling.ticket_queue import Counting


class HeldLease(msgspec.Struct, frozen=True):
    """`need`: the tokens that it may come to hold. `least_need` and `counting` as of its ticket,
    `read_bytes` and `progress` as in TicketArrived."""

    granted_at: float
    priority: Priority
    need: int
    least_need: int
    counting: Counting
    read_bytes: int | None = None
    progress: AnswerProgress | None = None


class EngineView(msgspec.Struct, eq=False):
    """An engine as the scheduler sees it. `leases` are the grants not yet returned, by ticket.

    `batch_waits`: an interactive demand wants its room, so batch tickets get no slot.
    `closed_since`: a demand that waits since then wants its room, and only tickets that came before
    it get a slot. `evicted`: what was stopped to make room for it.

    `unloading`: its drain is not called off, as its unload was requested, or the configuration has
    no room for it. `outdated`: it was started by another configuration, so what it says of itself
    holds for no other engine of its variant. `cause`: why it drains.

    `shared_tokens`: what all its leases have together; None: each has a context of its own.
    `places`: where its memory is. `is_waking`: it starts on a machine that has to be woken.
    """

    id: int
    facts: VariantFacts
    context: int
    started_at: float
    slots: int = 0
    state: EngineState = EngineState.STARTING
    leases: dict[int, HeldLease] = {}
    used_at: float = 0.0
    ready_at: float | None = None
    batch_waits: bool = False
    closed_since: float | None = None
    evicted: tuple[VariantKey, ...] = ()
    shared_tokens: int | None = None
    unloading: bool = False
    outdated: bool = False
    cause: Cause = Cause.SWAP
    places: Places = EVERYWHERE
    is_waking: bool = False

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

    def recount(self, ticket: int, need: int | None) -> None:
        """What a lease may come to hold, counted again; None: that stays as it is."""
        lease = self.leases[ticket]
        need = lease.need if need is None else need
        self.leases[ticket] = msgspec.structs.replace(
            lease, need=need, least_need=need, counting=Counting.DONE
        )

    def has_tokens_for(self, need: int) -> bool:
        """Whether that many are left. One request alone may have all: its context holds it."""
        if self.shared_tokens is None or not self.leases:
            return True
        return sum(lease.need for lease in self.leases.values()) + need <= self.shared_tokens

    def can_take(self, need: int) -> bool:
        """Whether it has a free slot, and so many tokens left for it."""
        return len(self.leases) < self.slots and self.has_tokens_for(need)
