"""Waiting: what a ticket waits for, what is in its way, and what it may expect. Pure.

It is found as the scheduler decides it: by the same plan of the same state, which is made once for
all tickets of a moment. `sentence.py` puts it into words.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.demands import Demand, Demands
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.outlook import Outlook, Outlooks
from trio_gateway.engine.scheduling.pool_memory import Shortage
from trio_gateway.engine.scheduling.recounts import teller_of
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.swap_plan import Planner, Step
from trio_gateway.engine.scheduling.ticket_queue import AGES_AFTER_WINDOWS, Counting, Ticket


class Cause(enum.Enum):
    """What a ticket waits for first. The last of them are about a start that others hold back."""

    NOTHING = "nothing: it is decided in this moment"
    PLACE = "a free place of its engine"
    TOKENS = "tokens that the places of its engine share"
    LOAD = "the load of its engine"
    WAKE = "the machine of its engine, which sleeps and is being woken"
    COUNTER = "the load of the engine that will count its tokens"
    COUNT = "the count of its tokens"
    PAUSE = "the end of a pause after failures"
    CLOSED = "another model, for which its engine makes way"
    ANSWERS = "answers of engines that take no more"
    TURN = "engines that take requests until their window is over"
    OVERTIME = "engines that still take what came before it"
    OTHER_LOAD = "an engine that loads, and then has its turn"
    BATCH = "engines that have interactive requests"
    STOP = "engines that are being stopped"
    HELD = "memory that other programs hold"
    LINE = "models that are in line before it"


class Scarce(enum.Enum):
    """What has to become free for a start."""

    PLACE = "a place in its pool"
    MEMORY = "memory of its pool"
    ADDRESS = "its fixed address"


class Blocker(msgspec.Struct, frozen=True):
    """An engine that is in the way, or what is to be started before. `running`: requests that it
    has; `are_answers`: something is generated for each of them. `waiting`: for its model."""

    key: VariantKey
    running: int = 0
    are_answers: bool = True
    waiting: int = 0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Of one ticket. Times are seconds from now, None where they are not known.

    `key`: the variant that serves it, or is to be started for it; `loads`: it is to be started yet.
    `load_s`: what its load takes, and `loading_s`: for how long one is under way, its own or the
    blocker's. `within_s`: the cause is over by then at the latest. `need`: its tokens. `shortage`:
    the memory that it lacks.
    """

    key: VariantKey
    cause: Cause
    outlook: Outlook
    need: int
    is_batch: bool = False
    loads: bool = False
    load_s: float | None = None
    blockers: tuple[Blocker, ...] = ()
    scarce: Scarce = Scarce.PLACE
    within_s: float | None = None
    loading_s: float | None = None
    other_load_s: float | None = None
    shortage: Shortage | None = None

    @property
    def before(self) -> int:
        """How many requests have their turn before it."""
        return self.outlook.position - 1

    @property
    def expected_s(self) -> float | None:
        """How long it will wait. Nobody knows what a count will say, when its model has its next
        turn, nor what other programs do."""
        unknown = self.cause in (Cause.COUNT, Cause.COUNTER, Cause.CLOSED, Cause.HELD)
        return None if unknown else self.outlook.wait_s


class _Plan(msgspec.Struct, frozen=True):
    """What is decided for the starts of this moment."""

    demands: Sequence[Demand]
    steps: dict[str, Step]  # by model
    short: dict[str, Shortage]  # by model


class Waits:
    """What tickets wait for at one moment. What several of them share is worked out once."""

    def __init__(self, state: SchedulerState, window_s: float, now: float) -> None:
        self._state, self._window_s, self._now = state, window_s, now
        self._outlooks = Outlooks(state, window_s, now)
        self._plan: _Plan | None = None

    def of_all(self, tickets: Iterable[Ticket]) -> dict[int, Waiting]:
        return {ticket.id: self.of(ticket) for ticket in tickets}

    def of(self, ticket: Ticket) -> Waiting:
        state, outlook = self._state, self._outlooks.of(ticket)
        found = Waiting(
            key=VariantKey(ticket.model, ""),
            cause=Cause.NOTHING,
            outlook=outlook,
            need=ticket.need,
            is_batch=ticket.priority is Priority.BATCH,
        )
        if (engine := state.server_of(ticket)) is not None:
            return self._at(engine, ticket, found)
        if (teller := teller_of(ticket, state, self._now)) is not None:
            cause = Cause.COUNT if teller.engine.ready_at is not None else Cause.COUNTER
            return self._loading(teller.engine, found, cause)
        facts = self._outlooks.start_for(ticket).facts
        load_s = state.forecast.known_load_s(facts)
        found = msgspec.structs.replace(found, key=facts.key, loads=True, load_s=load_s)
        if outlook.pause is not None:
            return msgspec.structs.replace(found, cause=Cause.PAUSE, within_s=outlook.pause.seconds)
        return self._before_a_start(ticket, found)

    # -- at an engine of its model --------------------------------------------------------------

    def _at(self, engine: EngineView, ticket: Ticket, found: Waiting) -> Waiting:
        if engine.state is EngineState.STARTING:
            return self._loading(engine, found, Cause.LOAD)
        found = msgspec.structs.replace(found, key=engine.key, blockers=(_blocker(engine),))
        if self._is_shut_out(engine, ticket):
            load_s = self._state.forecast.known_load_s(engine.facts)
            others = tuple(
                self._in_line(step.demand)
                for step in self._plans().steps.values()
                if engine in step.victims
            )
            return msgspec.structs.replace(
                found, cause=Cause.CLOSED, blockers=others, loads=True, load_s=load_s
            )
        if len(engine.leases) >= engine.slots:
            return msgspec.structs.replace(found, cause=Cause.PLACE)
        if engine.shared_tokens is not None and engine.leases:
            counted = ticket.counting is Counting.ASKED
            return msgspec.structs.replace(found, cause=Cause.COUNT if counted else Cause.TOKENS)
        return found

    def _loading(self, engine: EngineView, found: Waiting, cause: Cause) -> Waiting:
        loading_s = None if engine.ready_at is not None else self._now - engine.started_at
        load_s = self._state.forecast.known_start_s(engine)
        if cause is Cause.LOAD and engine.is_waking:
            cause = Cause.WAKE
        return msgspec.structs.replace(
            found, key=engine.key, cause=cause, loading_s=loading_s, load_s=load_s
        )

    def _is_shut_out(self, engine: EngineView, ticket: Ticket) -> bool:
        """Whether the engine takes it no more, for the sake of a start."""
        if engine.batch_waits and ticket.priority is Priority.BATCH:
            return True
        return engine.closed_since is not None and ticket.arrived_at >= engine.closed_since

    # -- before a start -------------------------------------------------------------------------

    def _plans(self) -> _Plan:
        if self._plan is None:
            demands, _, _ = Demands(self._state).now(self._now)
            planner = Planner(self._state, self._window_s, self._now)
            steps = {step.demand.facts.key.model: step for step in planner.steps(demands)}
            self._plan = _Plan(demands, steps, planner.short)
        return self._plan

    def _before_a_start(self, ticket: Ticket, found: Waiting) -> Waiting:
        step = self._plans().steps.get(ticket.model)
        if (shortage := self._plans().short.get(ticket.model)) is not None:
            return msgspec.structs.replace(found, cause=Cause.HELD, shortage=shortage)
        if step is None:
            return msgspec.structs.replace(
                found, cause=Cause.LINE, blockers=self._in_line_before(ticket)
            )
        if not step.victims:
            pool = step.demand.facts.pool
            stopping = [
                _blocker(engine)
                for engine in self._state.engines.values()
                if engine.state is EngineState.STOPPING
                and (engine.facts.pool == pool or _shares_address(engine, step.demand))
            ]
            if step.may_start or not stopping:
                return found
            return msgspec.structs.replace(found, cause=Cause.STOP, blockers=tuple(stopping))
        found = msgspec.structs.replace(
            found,
            blockers=tuple(map(_blocker, step.victims)),
            scarce=self._scarce(step),
        )
        return self._behind(step, ticket, found)

    def _behind(self, step: Step, ticket: Ticket, found: Waiting) -> Waiting:
        """What keeps the engines that are to make way for it from doing so."""
        now = self._now
        loading = [engine for engine in step.victims if engine.ready_at is None]
        if all(engine.state is EngineState.DRAINING for engine in step.victims):
            return msgspec.structs.replace(found, cause=Cause.ANSWERS)
        if step.yields_at <= now:
            return found  # they are told to in this moment
        if step.closes_at == math.inf and loading:
            engine = loading[0]
            return msgspec.structs.replace(
                found,
                cause=Cause.OTHER_LOAD,
                blockers=(_blocker(engine),),
                loading_s=now - engine.started_at,
                other_load_s=self._state.forecast.known_load_s(engine.facts),
            )
        if step.closes_at == math.inf and step.demand.priority is Priority.BATCH:
            ages_at = ticket.arrived_at + AGES_AFTER_WINDOWS * self._window_s
            return msgspec.structs.replace(
                found, cause=Cause.BATCH, within_s=_or_none(ages_at - now)
            )
        if step.closes_at <= now:
            return msgspec.structs.replace(
                found, cause=Cause.OVERTIME, within_s=_or_none(step.yields_at - now)
            )
        return msgspec.structs.replace(
            found, cause=Cause.TURN, within_s=_or_none(step.closes_at - now)
        )

    def _scarce(self, step: Step) -> Scarce:
        demand, state = step.demand, self._state
        if any(_shares_address(engine, demand) for engine in step.victims):
            return Scarce.ADDRESS
        pool, before = demand.facts.pool, self._demands_before(demand)
        steps = [s for d in before if (s := self._plans().steps.get(d.facts.key.model)) is not None]
        gone = {victim.id for s in steps for victim in s.victims}
        taken = sum(d.facts.pool == pool for d in before) + sum(
            e.state is not EngineState.STOPPING and e.id not in gone
            for e in state.index.in_pool(pool)
        )
        return Scarce.MEMORY if taken < state.pools[pool].engines else Scarce.PLACE

    def _demands_before(self, demand: Demand) -> Sequence[Demand]:
        demands = self._plans().demands
        return demands[: demands.index(demand)]

    def _in_line_before(self, ticket: Ticket) -> tuple[Blocker, ...]:
        """The models whose starts come first, and how many requests wait for each."""
        demands = self._plans().demands
        own = [demand for demand in demands if demand.facts.key.model == ticket.model]
        before = self._demands_before(own[0]) if own else ()
        return tuple(
            self._in_line(demand)
            for demand in before
            if demand.facts.pool == own[0].facts.pool
            or demand.facts.endpoint == own[0].facts.endpoint is not None
        )

    def _in_line(self, demand: Demand) -> Blocker:
        key = demand.facts.key
        return Blocker(key, waiting=len(self._state.queues[key.model]))


def _blocker(engine: EngineView) -> Blocker:
    are_answers = all(lease.read_bytes is None for lease in engine.leases.values())
    return Blocker(engine.key, len(engine.leases), are_answers)


def _shares_address(engine: EngineView, demand: Demand) -> bool:
    endpoint = demand.facts.endpoint
    return endpoint is not None and engine.facts.endpoint == endpoint


def _or_none(seconds: float) -> float | None:
    return None if seconds == math.inf else max(seconds, 0.0)
