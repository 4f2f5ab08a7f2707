"""What waits and what runs, as `/gateway/queue` and `/gateway/engines` show it."""

from __future__ import annotations

import msgspec
import trio

from trio_gateway.engine.manager import EngineManager


class TicketRow(msgspec.Struct, frozen=True):
    """A request that waits. `position` 1 is the next; `expected_wait_s` is a rough guess."""

    model: str
    need: int
    priority: str
    client: str
    waited_s: float
    position: int
    expected_wait_s: float


class EngineRow(msgspec.Struct, frozen=True):
    """An engine, from its start on. Times are seconds, None where there is none yet.

    `load_s`: what its load took, or what it is expected to take. `idle_s`: None while it has
    leases. `memory_bytes`: declared, measured or estimated; None: not known. `shared_tokens`: what
    all its requests share; None: each has its own. `kv_restored_tokens`: at its start.
    """

    model: str
    variant: str
    pool: str
    state: str
    context: int
    places: int | None
    leases: int
    pid: int | None
    port: int | None
    memory_bytes: int | None
    load_s: float
    loading_s: float | None
    idle_s: float | None
    shared_tokens: int | None
    kv_restored_tokens: int


def tickets(manager: EngineManager) -> list[TicketRow]:
    """The waiting tickets, the oldest first."""
    now = trio.current_time()
    rows = []
    for ticket in manager.scheduler.state.tickets.values():
        outlook = manager.outlook(ticket.id)
        assert outlook is not None
        rows.append(
            TicketRow(
                model=ticket.model,
                need=ticket.need,
                priority=ticket.priority.name.lower(),
                client=ticket.client,
                waited_s=round(now - ticket.arrived_at, 3),
                position=outlook.position,
                expected_wait_s=round(outlook.wait_s, 1),
            )
        )
    return rows


def engines(manager: EngineManager) -> list[EngineRow]:
    """All engines that are not gone, in the order of their starts."""
    now, state = trio.current_time(), manager.scheduler.state
    rows = []
    for view in state.engines.values():
        engine = manager.engines[view.id]
        load_s = (
            state.forecast.load_s(view.facts)
            if view.ready_at is None
            else view.ready_at - view.started_at
        )
        idle = view.ready_at is not None and not view.leases
        rows.append(
            EngineRow(
                model=view.key.model,
                variant=view.key.variant,
                pool=view.facts.pool,
                state=view.state.value,
                context=view.context,
                places=view.places or view.facts.parallel,
                leases=len(view.leases),
                pid=engine.pid,
                port=engine.port,
                memory_bytes=state.memory_of(view.facts),
                load_s=round(load_s, 3),
                loading_s=round(now - view.started_at, 3) if view.ready_at is None else None,
                idle_s=round(now - view.used_at, 3) if idle else None,
                shared_tokens=engine.info.shared_tokens if engine.info is not None else None,
                kv_restored_tokens=engine.kv.restored_tokens if engine.kv is not None else 0,
            )
        )
    return rows
