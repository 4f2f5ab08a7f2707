"""How long a ticket waits for other models' engines: no longer than rule 5 of the scheduler says.

A world with a clock: loads, leases and stops take their time, clients ask, wait, leave and ask
again. What is measured is the time until an engine that can serve the ticket is ready, counted
from its arrival, or for a batch ticket from when it has aged.

In that time each other model of the pool may have a *turn*: the rest of a load, then what its
engine goes on to serve for (the fairness window, or twice its own and the next one's load while
older tickets wait), then the longest lease and the stop. What remains is the ticket's own load.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_gateway.config.schema import PoolConfig
from trio_gateway.engine.events import (
    Drain,
    EngineExited,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Priority,
    Resume,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduler import AGES_AFTER_WINDOWS, Scheduler
from trio_gateway.engine.swap_plan import OVERTIME_LOADS

STOP_S = 1.0
CONTEXTS = (100, 200, 400)
CLOCK_ERROR_S = 1e-6


@dataclass(frozen=True)
class Ask:
    """A client's request, `pause_s` after its last one ended. After `patience_s` it leaves."""

    model: str
    pause_s: float
    lease_s: float
    need: int = 100
    priority: Priority = Priority.INTERACTIVE
    patience_s: float | None = None


@dataclass
class Process:
    facts: VariantFacts
    ready: bool = False
    draining: bool = False
    stopping: bool = False

    def can_serve(self, asked: TicketArrived) -> bool:
        usable = self.ready and not self.draining and not self.stopping
        return usable and (self.facts.key.model == asked.model and self.facts.context >= asked.need)


@dataclass
class Wait:
    """A ticket that waits for an engine. `since`: when it arrived, or when it has aged."""

    asked: TicketArrived
    since: float
    until: float | None = None


@dataclass
class Life:
    """An engine from its start until it was gone."""

    key: VariantKey
    began: float
    ended: float = math.inf


@dataclass
class TimedWorld:
    """Real engines take `load_s` (by variant) to load. `places`: of each engine."""

    variants: Sequence[VariantFacts]
    engines: int
    window_s: float
    load_s: dict[VariantKey, float]
    places: int = 1
    now: float = 0.0
    waits: dict[int, Wait] = field(default_factory=dict)
    granted: dict[int, Ask] = field(default_factory=dict)
    live: dict[int, Process] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.subject = Scheduler(
            self.variants,
            {"p": PoolConfig("p", self.engines)},
            queue_limit=10_000,
            queue_timeout_s=1e9,
            fairness_window_s=self.window_s,
        )
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._asks: dict[int, tuple[Ask, Callable[[], None]]] = {}
        self._tickets = itertools.count(1)
        self._open: dict[int, Wait] = {}  # whose wait is not over

    # -- the clients -------------------------------------------------------------------------

    def add_client(self, name: str, asks: Sequence[Ask], starts_at: float = 0.0) -> None:
        rest = iter(asks)

        def ask_next() -> None:
            if (ask := next(rest, None)) is not None:
                asks_at = max(self.now, starts_at) + ask.pause_s
                self._at(asks_at, partial(self._ask, name, ask, ask_next))

        ask_next()

    def _ask(self, client: str, ask: Ask, go_on: Callable[[], None]) -> None:
        number = next(self._tickets)
        asked = TicketArrived(number, ask.model, ask.need, client, ask.priority)
        aged_s = AGES_AFTER_WINDOWS * self.window_s if ask.priority is Priority.BATCH else 0.0
        self.waits[number] = self._open[number] = Wait(asked, self.now + aged_s)
        self._asks[number] = ask, go_on
        if ask.patience_s is not None:
            self._at(self.now + ask.patience_s, partial(self._leave, number))
        self._tell(asked)

    def _leave(self, number: int) -> None:
        if number in self._asks and number not in self.granted:
            _, go_on = self._asks.pop(number)
            self._has_waited(number)
            self._tell(TicketGone(number))
            go_on()

    def _end_lease(self, number: int) -> None:
        _, go_on = self._asks.pop(number)
        self._tell(LeaseReturned(number))
        go_on()

    # -- the engines -------------------------------------------------------------------------

    def _get_ready(self, number: int) -> None:
        if (process := self.live.get(number)) is not None and not process.stopping:
            process.ready = True
            self._note_served()  # it may drain in the same moment, its places taken
            self._tell(EngineReady(number, self.places, process.facts.context))

    def _exit(self, number: int) -> None:
        del self.live[number]
        self.lives[number].ended = self.now
        self._tell(EngineExited(number))

    def _tell(self, event: Event) -> None:
        for action in self.subject.handle(event, self.now):
            match action:
                case Grant(ticket, _):
                    self._has_waited(ticket)
                    self.granted[ticket] = self._asks[ticket][0]
                    self._at(
                        self.now + self.granted[ticket].lease_s, partial(self._end_lease, ticket)
                    )
                case Start(number, key):
                    facts = next(f for f in self.variants if f.key == key)
                    self.live[number] = Process(facts)
                    self.lives[number] = Life(key, self.now)
                    self._at(self.now + self.load_s[key], partial(self._get_ready, number))
                case Drain(number):
                    self.live[number].draining = True
                case Resume(number):
                    self.live[number].draining = False
                case Stop(number):
                    self.live[number].stopping = True
                    self._at(self.now + STOP_S, partial(self._exit, number))
                case _:
                    raise AssertionError(f"nothing is rejected here: {action}")
        self._note_served()

    def _note_served(self) -> None:
        for wait in [*self._open.values()]:
            served = any(process.can_serve(wait.asked) for process in self.live.values())
            if served and self.now >= wait.since:
                self._has_waited(wait.asked.ticket)

    def _has_waited(self, ticket: int) -> None:
        if (wait := self._open.pop(ticket, None)) is not None:
            wait.until = max(self.now, wait.since)

    # -- time --------------------------------------------------------------------------------

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), what))

    def run(self) -> None:
        """To the end: until nobody asks any more."""
        while self._agenda:
            when, _, what = self._agenda[0]
            deadline = self.subject.next_deadline()
            if deadline is not None and deadline <= when:
                assert deadline >= self.now
                self.now = deadline
                self._tell(TimePassed())
                after = self.subject.next_deadline()
                assert after is None or after > deadline, "the timer would spin"
            else:
                heapq.heappop(self._agenda)
                self.now = when
                what()
        assert not self.subject.state.tickets, "nobody is left waiting"

    # -- the bound ---------------------------------------------------------------------------

    def longest_lease_s(self, model: str) -> float:
        return max(
            (ask.lease_s for ask in self.granted.values() if ask.model == model), default=0.0
        )

    def turn_s(self, facts: VariantFacts) -> float:
        """The longest turn of an engine of this variant."""
        overtime_s = OVERTIME_LOADS * (self.load_s[facts.key] + max(self.load_s.values()))
        serves_s = max(self.window_s, overtime_s)
        return self.load_s[facts.key] + serves_s + self.longest_lease_s(facts.key.model) + STOP_S

    def bound_s(self, wait: Wait) -> float:
        """One turn of each variant that had an engine in the meantime, and the ticket's own load.
        A variant of its own model counts if it was in its way."""
        assert wait.until is not None
        in_the_way = {
            life.key
            for life in self.lives.values()
            if life.began < wait.until and life.ended > wait.since
        }
        turns_s = sum(self.turn_s(facts) for facts in self.variants if facts.key in in_the_way)
        own = [facts.key for facts in self.variants if facts.key.model == wait.asked.model]
        return turns_s + max(self.load_s[key] for key in own)

    def starts_of_others(self, wait: Wait) -> Counter[VariantKey]:
        """How often each other model's variants were started before the ticket's own engine."""
        assert wait.until is not None
        own = [life.began for life in self.lives.values() if life.key.model == wait.asked.model]
        until = max((began for began in own if began < wait.until), default=wait.until)
        return Counter(
            life.key
            for life in self.lives.values()
            if wait.since < life.began < until and life.key.model != wait.asked.model
        )


def hammering(model: str, requests: int, lease_s: float, need: int = 100) -> list[Ask]:
    return [Ask(model, 0.0, lease_s, need)] * requests


SECONDS = st.sampled_from((0.0, 0.5, 2.0, 3.0, 7.0))
LEASES = st.sampled_from((0.7, 1.0, 4.0, 9.0))


@st.composite
def timed_worlds(draw: st.DrawFn) -> TimedWorld:
    models = "abcde"[: draw(st.integers(2, 5))]
    variants, load_s = [], {}
    for model in models:
        for context in CONTEXTS[: draw(st.sampled_from((1, 1, 2, 3)))]:
            key = VariantKey(model, str(context))
            load_s[key] = draw(st.sampled_from((1.0, 2.0, 5.0)))
            variants.append(
                VariantFacts(
                    key=key,
                    pool="p",
                    context=context,
                    load_time_s=load_s[key],
                    pinned=draw(st.booleans()),
                    idle_timeout_s=draw(st.sampled_from((1.5, 300.0))),
                )
            )
    world = TimedWorld(
        variants,
        engines=draw(st.sampled_from((1, 1, 2))),
        window_s=draw(st.sampled_from((0.0, 2.0, 10.0))),
        load_s=load_s,
        places=draw(st.integers(1, 3)),
    )
    for stream in range(draw(st.integers(0, 4))):  # one client that never stops asking for a
        world.add_client("hammer", hammering("a", 40 + stream, draw(LEASES)))
    for number in range(draw(st.integers(1, 5))):
        asks = draw(
            st.lists(
                st.builds(
                    Ask,
                    st.sampled_from(models),
                    SECONDS,
                    LEASES,
                    st.sampled_from((100, 100, 200, 400)),
                    st.sampled_from((Priority.INTERACTIVE, *Priority)),
                    st.sampled_from((None, None, 3.0)),
                ),
                min_size=1,
                max_size=12,
            )
        )
        largest = {m: max(f.context for f in variants if f.key.model == m) for m in models}
        fitting = [
            Ask(
                a.model,
                a.pause_s,
                a.lease_s,
                min(a.need, largest[a.model]),
                a.priority,
                a.patience_s,
            )
            for a in asks
        ]
        world.add_client(f"client {number}", fitting, starts_at=draw(SECONDS))
    return world


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(timed_worlds())
def test_no_ticket_waits_for_other_engines_longer_than_the_bound(world: TimedWorld) -> None:
    world.run()
    for wait in world.waits.values():
        assert wait.until is not None
        assert wait.until - wait.since <= world.bound_s(wait) + CLOCK_ERROR_S, wait


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(timed_worlds())
def test_while_a_ticket_waits_no_variant_of_another_model_is_started_twice(
    world: TimedWorld,
) -> None:
    world.run()
    for wait in world.waits.values():
        assert max(world.starts_of_others(wait).values(), default=0) <= 1, wait


@settings(max_examples=200, deadline=None)
@given(
    streams=st.lists(LEASES, min_size=1, max_size=4),
    places=st.integers(1, 4),
    loads=st.tuples(st.sampled_from((1.0, 3.0, 8.0)), st.sampled_from((1.0, 3.0, 8.0))),
    pauses=st.lists(st.sampled_from((0.1, 5.0, 12.0, 30.0)), min_size=1, max_size=4),
)
def test_beside_one_hammering_client_a_person_waits_the_window_a_lease_a_stop_and_a_load(
    streams: list[float], places: int, loads: tuple[float, float], pauses: list[float]
) -> None:
    """The bound of the issue, to the second: the engine of the other model is ready, and what
    waits there is over before the window is."""
    a, b = (VariantFacts(key=VariantKey(m, "100"), pool="p", context=100) for m in "ab")
    world = TimedWorld([a, b], 1, 40.0, {a.key: loads[0], b.key: loads[1]}, places=places)
    for lease_s in streams:
        world.add_client("hammer", hammering("a", int(200 / lease_s) + 1, lease_s))
    world.add_client("person", [Ask("b", 60.0 + pause_s, 1.0) for pause_s in pauses], 20.0)
    world.run()
    for wait in world.waits.values():
        if wait.asked.model == "b":
            assert wait.until is not None
            bound_s = world.window_s + max(streams) + STOP_S + loads[1]
            assert wait.until - wait.since <= bound_s + CLOCK_ERROR_S
