"""Tables for the scheduler: variants to schedule, and events with the decisions that they bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import (
    Action,
    CountAgain,
    Drain,
    EndAnswer,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Reject,
    Resume,
    Start,
    Stop,
    TicketArrived,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.memory_events import (
    Look,
    YieldEnded,
    YieldReady,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler

SMALL, LARGE = 1000, 4000
MODELS = "abcdefgh"
GB = 10**9


class LeaseBack(NamedTuple):
    """The oldest lease of this engine is returned."""

    engine: int


Step = tuple[float, Event | LeaseBack, list[str]]


def variant(
    name: str,
    context: int = SMALL,
    *,
    pool: str = "primary",
    parallel: int | None = None,
    endpoint: str | None = None,
    idle_timeout_s: float = 300.0,
    pinned: bool = False,
    load_time_s: float = 10.0,
    longest_answer_s: float = math.inf,
    declared: int | None = None,
    estimated: int | None = None,
) -> VariantFacts:
    """`name` is `model:variant`. Memory is in bytes, either declared or estimated."""
    model, _, label = name.partition(":")
    return VariantFacts(
        key=VariantKey(model, label or "only"),
        pool=pool,
        context=context,
        parallel=parallel,
        endpoint=endpoint,
        idle_timeout_s=idle_timeout_s,
        pinned=pinned,
        memory_bytes=estimated if declared is None else declared,
        memory_declared=declared is not None,
        load_time_s=load_time_s,
        longest_answer_s=longest_answer_s,
    )


A, B, C, D = variant("a"), variant("b"), variant("c"), variant("d")
GROWING = (variant("a:small", SMALL), variant("a:large", LARGE))


def scheduler(
    *variants: VariantFacts,
    primary: int = 1,
    secondary: int = 1,
    memory_bytes: int | None = None,
    queue_limit: int = 256,
    queue_timeout_s: float = 600.0,
    window_s: float = 0.0,
    lease_s: float | None = 10.0,
) -> Scheduler:
    """`primary` and `secondary` are the engines of these pools, `memory_bytes` is the primary's.
    Without a fairness window, unless a test is about it. `lease_s`: what the leases of each model
    took so far."""
    subject = Scheduler(
        variants,
        {
            "primary": PoolConfig("primary", primary, memory_bytes),
            "secondary": PoolConfig("secondary", secondary),
        },
        queue_limit=queue_limit,
        queue_timeout_s=queue_timeout_s,
        fairness_window_s=window_s,
    )
    if lease_s is not None:
        for facts in variants:
            subject.state.forecast.lease_took(facts.key.model, lease_s)
    return subject


def arrive(
    ticket: int,
    model: str,
    need: int = 100,
    *,
    client: str = "",
    start_need: int = 0,
    least: int | None = None,
) -> TicketArrived:
    return TicketArrived(ticket, model, need, client, start_need=start_need, least_need=least)


def batch(ticket: int, model: str, need: int = 100, *, client: str = "") -> TicketArrived:
    return TicketArrived(ticket, model, need, client, Priority.BATCH)


def ready(
    engine: int, slots: int = 1, context: int = SMALL, *, shared_tokens: int | None = None
) -> EngineReady:
    return EngineReady(engine, slots, context, shared_tokens)


def loaded(models: str, *, slots: int = 1, at: float = 0) -> list[Step]:
    """An engine for each of these models (one letter each): ticket 1 comes and engine 1 gets ready
    at that time, then ticket 2 and engine 2, and so on. Each ticket keeps its lease."""
    steps: list[Step] = []
    for number, model in enumerate(models, 1):
        steps += [
            (at, arrive(number, model), [f"start {model}:only as {number}"]),
            (at, ready(number, slots), [f"grant {number} engine {number}"]),
        ]
    return steps


def brief(action: Action) -> str:
    match action:
        case Grant(ticket, engine):
            return f"grant {ticket} engine {engine}"
        case Start(engine, key):
            return f"start {key} as {engine}"
        case Drain(engine):
            return f"drain {engine}"
        case Resume(engine):
            return f"resume {engine}"
        case Stop(engine):
            return f"stop {engine}"
        case EndAnswer(ticket):
            return f"end {ticket}"
        case Reject(ticket, refusal):
            return f"reject {ticket} {refusal.name}"
        case CountAgain(ticket):
            return f"count {ticket}"
        case Look(pool):
            return f"look {pool}"
        case YieldReady(number):
            return f"room {number}"
        case YieldEnded(number):
            return f"over {number}"


def play(subject: Scheduler, steps: Sequence[Step]) -> list[Action]:
    """Hold what it decides against the table; the actions of the last step."""
    actions: list[Action] = []
    for number, (now, event, expected) in enumerate(steps):
        if isinstance(event, LeaseBack):
            event = LeaseReturned(next(iter(subject.state.engines[event.engine].leases)))
        actions = subject.handle(event, now)
        assert [brief(a) for a in actions] == expected, f"step {number}: {event}\n{subject!r}"
    return actions
