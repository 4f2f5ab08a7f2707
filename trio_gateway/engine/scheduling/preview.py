"""What would happen to a ticket if it came now: the dry run of a decision.

The ticket joins a copy of its model's queue, next to the state as it is, and the same parts are
asked that decide for a real one. So the answer is what would be decided in this moment; what comes
later (who asks next, how long answers take) is a guess, as each outlook is.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence

import msgspec

from trio_gateway.engine.scheduling.demands import Demands, PauseLeft, start_for
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import How, VariantKey
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.outlook import outlook_of
from trio_gateway.engine.scheduling.pool_memory import Shortage
from trio_gateway.engine.scheduling.recounts import teller_of
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Planner
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue

NEWCOMER = sys.maxsize  # the number, and the place in line, of a ticket that comes after all others


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a ticket.

    `variant`: what would serve it; None: no variant holds it, and the rest says nothing.
    `how`: REUSED if an engine serves it that is ready or starting, or drains and would be called
    back; `engine_state` is that engine's, else None. `evicts`: what makes way for the start as
    things are; also empty where that is not decided, as others that wait have all the room.
    `expected_wait_s`: until its grant; `expected_load_s` of it are a load. None: not known.
    `pause`: what it would wait for is left alone for now: it would wait for the end of that, which
    is part of the wait, or be refused. `is_counted_there`: its need is no more than a bound, and
    `variant` is the engine that would count it before anything is started for it. `shortage`: the
    memory that it would wait for, as other programs have it.
    """

    variant: VariantKey | None
    how: How
    engine_state: EngineState | None = None
    evicts: tuple[VariantKey, ...] = ()
    expected_wait_s: float | None = 0.0
    expected_load_s: float | None = 0.0
    pause: PauseLeft | None = None
    is_counted_there: bool = False
    shortage: Shortage | None = None


def preview_of(
    ticket: Ticket,
    state: SchedulerState,
    evicted: Sequence[VariantKey],
    window_s: float,
    now: float,
) -> Preview:
    """For a ticket that is in no queue.

    Args:
        evicted: what makes way for its model's start already.
    """
    sizes = state.variants.sizes_for(ticket)
    if sizes is None:
        return Preview(variant=None, how=How.STARTED)
    ticket.size, ticket.start_size = sizes
    if (engine := state.engine_with_slot_for(ticket, ticket.size)) is not None:
        return Preview(variant=engine.key, how=How.REUSED, engine_state=engine.state)
    joined = _joined_by(ticket, state)
    outlook = outlook_of(ticket, joined, window_s, now)
    if (engine := state.server_of(ticket)) is not None:
        left_s: float | None = 0.0
        if outlook.loading_s is not None:
            load_s = outlook.load_s
            left_s = None if load_s is None else max(load_s - outlook.loading_s, 0.0)
        return Preview(
            variant=engine.key,
            how=How.REUSED,
            engine_state=engine.state,
            expected_wait_s=outlook.wait_s,
            expected_load_s=left_s,
        )
    if (teller := teller_of(ticket, joined, now)) is not None:
        left_s = _left_of_load_s(teller.engine, state, now)
        return Preview(
            variant=teller.engine.key,
            how=How.REUSED,
            engine_state=teller.engine.state,
            expected_wait_s=left_s,
            expected_load_s=left_s,
            is_counted_there=True,
        )
    choice = start_for(ticket, joined.queues[ticket.model], joined, now)
    load_s = state.forecast.known_load_s(choice.facts)
    if outlook.pause is not None:
        return Preview(
            variant=choice.facts.key,
            how=How.STARTED,
            expected_wait_s=outlook.wait_s,
            expected_load_s=load_s,
            pause=outlook.pause,
        )
    demands, _, _ = Demands(joined).now(now)
    planner = Planner(joined, window_s, now)
    steps = [step for step in planner.steps(demands) if step.demand.facts.key.model == ticket.model]
    for engine in planner.called_back:
        if engine.key.model == ticket.model:
            free = engine.can_take(ticket.need)
            return Preview(
                variant=engine.key,
                how=How.REUSED,
                engine_state=engine.state,
                expected_wait_s=0.0 if free else None,
            )
    if (shortage := planner.short.get(ticket.model)) is not None:
        return Preview(
            variant=choice.facts.key,
            how=How.STARTED,
            expected_wait_s=None,
            expected_load_s=load_s,
            shortage=shortage,
        )
    victims = [victim.key for step in steps for victim in step.victims]
    evicts = tuple(dict.fromkeys((*evicted, *victims)))
    return Preview(
        variant=choice.facts.key,
        how=How.SWAPPED if evicts or not steps else How.STARTED,
        evicts=evicts,
        expected_wait_s=outlook.wait_s,
        expected_load_s=load_s,
    )


def _left_of_load_s(engine: EngineView, state: SchedulerState, now: float) -> float:
    if engine.state is not EngineState.STARTING:
        return 0.0
    return max(engine.started_at + state.forecast.start_s(engine) - now, 0.0)


def _joined_by(ticket: Ticket, state: SchedulerState) -> SchedulerState:
    """The state with the ticket in its queue. All else is the given state's own, so nothing of it
    is to be changed."""
    ticket.place = NEWCOMER
    queue = state.queues.get(ticket.model, TicketQueue()).copied()
    queue.add(ticket)
    joined = copy.copy(state)
    joined.queues = {**state.queues, ticket.model: queue}
    joined.tickets = {**state.tickets, ticket.id: ticket}
    return joined
