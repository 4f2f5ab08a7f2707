"""The scheduler's promises: each of its decisions is held against what really happens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.support.shared_memory import SharedMemory
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.events import (
    Action,
    Cause,
    CountAgain,
    Drain,
    Event,
    Grant,
    Reject,
    Resume,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    Look,
    Places,
    YieldEnded,
    YieldReady,
)
from trio_gateway.engine.scheduling.pool_memory import FRESH_S
from trio_gateway.engine.scheduling.scheduler import Scheduler


@dataclass
class Running:
    """An engine of the simulated world: a process that takes its time."""

    facts: VariantFacts
    context: int
    loading: bool = True
    draining: bool = False
    stopping: bool = False
    unloading: bool = False
    outdated: bool = False
    places: Places = ((WHOLE, 1.0),)
    slots: int = 0
    shared_tokens: int | None = None
    leases: dict[int, int] = field(default_factory=dict)  # the need of each ticket

    @property
    def usable(self) -> bool:
        return not (self.loading or self.draining or self.stopping)


@dataclass
class Promises:
    """What really happens, kept next to the scheduler and without its help.

    `take_in` hands it an event and holds each decision against the promises.
    """

    subject: Scheduler
    pools: dict[str, PoolConfig]
    variants: dict[VariantKey, VariantFacts]
    contexts: dict[VariantKey, int] = field(default_factory=dict)  # what engines said
    measured: dict[VariantKey, int] = field(default_factory=dict)
    now: float = 0.0
    next_ticket: int = 1
    waiting: dict[int, TicketArrived] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    live: dict[int, Running] = field(default_factory=dict)
    leases: list[int] = field(default_factory=list)  # by ticket, those of crashed engines as well
    starts: int = 0
    closing: bool = False
    counted: list[int] = field(default_factory=list)  # by ticket: what was ever counted again
    asked: dict[int, TicketArrived] = field(default_factory=dict)
    counting: list[int] = field(default_factory=list)  # of them, those without a count so far
    reloading: bool = False  # in this moment
    original: dict[VariantKey, VariantFacts] | None = None  # once they are others
    memory: SharedMemory = field(default_factory=SharedMemory)
    looks: list[str] = field(default_factory=list)  # pools that are to be looked at

    def take_in(self, event: Event) -> list[Action]:
        actions = self.subject.handle(event, self.now)
        for action in actions:
            self._check(action)
        state = self.subject.state
        assert set(state.tickets) == set(self.waiting)
        assert {n: set(e.leases) for n, e in state.engines.items()} == {
            n: set(e.leases) for n, e in self.live.items()
        }
        deadline = self.subject.next_deadline()
        more = self.subject.handle(TicketGone(0), self.now)
        assert more == [], f"it had not decided all: {self.subject} {self.now} {more}"
        assert self.subject.next_deadline() == deadline
        return actions

    def _check(self, action: Action) -> None:
        match action:
            case Grant(ticket, number):
                asked = self._end(ticket)
                self._check_grant(asked, self.live[number])
                self.live[number].leases[ticket] = asked.need
                self.leases.append(ticket)
            case Reject(ticket):
                self._end(ticket)
            case Start(number, key):
                assert number not in self.live
                places = self.subject.state.engines[number].places
                self._check_start(self.variants[key], places)
                self._check_devices(self.variants[key], places, action.devices)
                self.live[number] = Running(self.variants[key], self.context_of(key), places=places)
                self.starts += 1
            case Drain(number, _, cause):
                engine = self.live[number]
                assert engine.leases, "it could be stopped at once"
                assert engine.usable
                engine.draining = True
                engine.unloading |= self._is_by_reload(cause)
                self._check_cause(engine, cause)
            case Resume(number):
                engine = self.live[number]
                assert engine.draining
                assert not engine.stopping
                assert not engine.unloading
                assert not self.closing
                engine.draining = False
            case Stop(number, _, cause):
                engine = self.live[number]
                assert not engine.leases
                assert not engine.stopping
                may_stop = self.closing or engine.unloading or self._is_by_reload(cause)
                assert not (engine.loading and self._is_wanted(engine)) or may_stop
                if not engine.draining:
                    self._check_cause(engine, cause)
                engine.stopping = True
            case Look(pool):
                assert pool not in self.looks
                assert self.pools[pool].is_watched
                self.looks.append(pool)
            case YieldReady(number):
                pool, place = self.memory.yields[number][:2]
                limit = self.memory.limit(self.pools[pool], place, up_to=number)
                held = [e for e in self.live.values() if e.facts.pool == pool]
                assert sum(self._reserved(e.facts, e.places, place) for e in held) <= limit
            case YieldEnded(number):
                self.memory.end_yield(number)
            case CountAgain(ticket):
                assert ticket not in self.counted, "one count is all that it gets"
                self.counted.append(ticket)
                self.counting.append(ticket)
                self._check_count(ticket)

    def _is_by_reload(self, cause: Cause) -> bool:
        assert cause is not Cause.RELOAD or self.reloading
        return cause is Cause.RELOAD

    def _check_count(self, ticket: int) -> None:
        """It is asked where an engine can tell, and where that can change something."""
        asked = self.waiting.get(ticket)
        if asked is None:
            (engine,) = (e for e in self.live.values() if ticket in e.leases)
            assert engine.shared_tokens is not None
            return
        assert asked.least_need is not None
        assert asked.least_need < asked.need
        usable = [e for e in self.live.values() if e.usable and e.facts.key.model == asked.model]
        assert usable

    def _check_grant(self, asked: TicketArrived, engine: Running) -> None:
        assert engine.usable
        assert engine.facts.key.model == asked.model
        assert engine.context >= asked.need
        assert len(engine.leases) < engine.slots
        if engine.shared_tokens is not None and engine.leases:
            assert sum(engine.leases.values()) + asked.need <= engine.shared_tokens
        for other in self.waiting.values():
            same = (other.model, other.client, other.priority) == (
                asked.model,
                asked.client,
                asked.priority,
            )
            held = other.need <= engine.context
            assert not (same and held and other.ticket < asked.ticket), "out of its order"

    def _check_start(self, facts: VariantFacts, places: Places) -> None:
        assert not self.closing
        assert any(
            t.model == facts.key.model and t.need <= self.context_of(facts.key)
            for t in self.waiting.values()
        ), "nobody waits for it"
        assert facts.endpoint is None or facts.endpoint not in {
            e.facts.endpoint for e in self.live.values()
        }
        pool = self.pools[facts.pool]
        here = [e for e in self.live.values() if e.facts.pool == pool.name]
        assert len(here) < pool.engines
        if pool.is_watched:
            assert self.now - self.memory.seen_at[pool.name] <= FRESH_S
        for place in self.memory.places(pool):
            if not _share(places, place):
                continue
            others = [e for e in here if _share(e.places, place)]
            together = sum(self._reserved(e.facts, e.places, place) for e in others)
            together += self._reserved(facts, places, place)
            assert together <= self.memory.limit(pool, place), "only alone"

    def _check_devices(self, facts: VariantFacts, places: Places, devices: tuple[str, ...]) -> None:
        known = [device.name for device in self.pools[facts.pool].devices]
        if not known:
            assert (places, devices) == (((WHOLE, 1.0),), ())
            return
        assert [place for place, _ in places] == [*devices]
        assert len({*devices}) == len(devices) == min(facts.devices, len(known))
        assert {*devices} <= {*known}
        assert abs(sum(share for _, share in places) - 1) < 1e-9

    def _check_cause(self, engine: Running, cause: Cause) -> None:
        if cause is Cause.YIELD:
            assert any(y[0] == engine.facts.pool for y in self.memory.yields.values())

    def _reserved(self, facts: VariantFacts, places: Places, place: str) -> int:
        """As much as is known; of what is not known, or more than there ever is, all of it."""
        if not (share := _share(places, place)):
            return 0
        base, known = self.memory.base(self.pools[facts.pool], place), self._memory_of(facts)
        most = self.memory.capacity(self.pools[facts.pool], place)
        if known is None or most is None or math.ceil(known * share) >= most:
            return base
        return math.ceil(known * share)

    def context_of(self, key: VariantKey) -> int:
        return self.contexts.get(key, self.variants[key].context)

    def _memory_of(self, facts: VariantFacts) -> int | None:
        if facts.memory_declared:
            return facts.memory_bytes
        return self.measured.get(facts.key, facts.memory_bytes)

    def _is_wanted(self, engine: Running) -> bool:
        return any(
            t.model == engine.facts.key.model and t.need <= engine.context
            for t in self.waiting.values()
        )

    def _end(self, ticket: int) -> TicketArrived:
        assert ticket not in self.ended
        self.ended.add(ticket)
        return self.waiting.pop(ticket)


def _share(places: Places, place: str) -> float:
    shares = dict(places)
    return 1.0 if place == WHOLE or WHOLE in shares else shares.get(place, 0.0)
