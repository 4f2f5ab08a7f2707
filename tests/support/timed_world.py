"""A world with a clock for the scheduler: loads, leases and stops take their time, clients ask,
wait, leave and ask again."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from tests.support.virtual_clock import VirtualClock
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import (
    CountAgain,
    Drain,
    EngineExited,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Recounted,
    Resume,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.giving_up import OVERTIME_LOADS
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.ticket_queue import AGES_AFTER_WINDOWS

STOP_S = 1.0
COUNT_S = 0.25
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
    start_need: int = 0
    exact_share: float | None = None  # of the need, as an engine counts it; None: it is exact


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
    """A ticket that waits for an engine. `since`: when it arrived, or when it has aged. `until`:
    when an engine that can serve it was ready; then it waits for a slot until `ended`."""

    asked: TicketArrived
    arrived: float
    since: float
    until: float | None = None
    ended: float = math.inf


@dataclass
class Life:
    """An engine from its start until it was gone."""

    key: VariantKey
    began: float
    ended: float = math.inf


@dataclass
class TimedWorld:
    """Real engines take `load_s` (by variant) to load. `slots`: of each engine, `shared_percent`:
    the tokens that these share, of one's context; None: each has a context of its own."""

    variants: Sequence[VariantFacts]
    engines: int
    window_s: float
    load_s: dict[VariantKey, float]
    slots: int = 1
    shared_percent: int | None = None
    waits: dict[int, Wait] = field(default_factory=dict)
    granted: dict[int, Ask] = field(default_factory=dict)
    grants: list[tuple[int, int]] = field(default_factory=list)  # ticket and context, in order
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
        self._clock = VirtualClock()
        self._asks: dict[int, tuple[Ask, Callable[[], None]]] = {}
        self._tickets = itertools.count(1)
        self._open: dict[int, Wait] = {}  # whose wait is not over

    # -- the clients -------------------------------------------------------------------------

    def add_client(self, name: str, asks: Sequence[Ask], starts_at: float = 0.0) -> None:
        rest = iter(asks)

        def ask_next() -> None:
            if (ask := next(rest, None)) is not None:
                asks_at = max(self.now, starts_at) + ask.pause_s
                self._clock.at(asks_at, partial(self._ask, name, ask, ask_next))

        ask_next()

    def _ask(self, client: str, ask: Ask, go_on: Callable[[], None]) -> None:
        number = next(self._tickets)
        asked = TicketArrived(
            number,
            ask.model,
            ask.need,
            client,
            ask.priority,
            ask.start_need,
            least_need=None if ask.exact_share is None else round(ask.need * ask.exact_share / 2),
        )
        aged_s = AGES_AFTER_WINDOWS * self.window_s if ask.priority is Priority.BATCH else 0.0
        self.waits[number] = self._open[number] = Wait(asked, self.now, self.now + aged_s)
        self._asks[number] = ask, go_on
        if ask.patience_s is not None:
            self._clock.at(self.now + ask.patience_s, partial(self._leave, number))
        self._tell(asked)

    def _count(self, number: int) -> None:
        if number in self._asks:
            ask, _ = self._asks[number]
            assert ask.exact_share is not None
            need, wait = round(ask.need * ask.exact_share), self.waits[number]
            wait.asked = msgspec.structs.replace(wait.asked, need=need)
            self._note_served()
            self._tell(Recounted(number, need))

    def _leave(self, number: int) -> None:
        if number in self._asks and number not in self.granted:
            _, go_on = self._asks.pop(number)
            self._has_waited(number)
            self.waits[number].ended = self.now
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
            self._note_served()  # it may drain in the same moment, its slots taken
            context, percent = process.facts.context, self.shared_percent
            shared_tokens = None if percent is None else context * percent // 100
            self._tell(EngineReady(number, self.slots, context, shared_tokens))

    def _exit(self, number: int) -> None:
        del self.live[number]
        self.lives[number].ended = self.now
        self._tell(EngineExited(number))

    def _tell(self, event: Event) -> None:
        for action in self.subject.handle(event, self.now):
            match action:
                case Grant(ticket, number):
                    self._has_waited(ticket)
                    self.waits[ticket].ended = self.now
                    self.grants.append((ticket, self.live[number].facts.context))
                    self.granted[ticket] = self._asks[ticket][0]
                    self._clock.at(
                        self.now + self.granted[ticket].lease_s, partial(self._end_lease, ticket)
                    )
                case CountAgain(ticket):
                    self._clock.at(self.now + COUNT_S, partial(self._count, ticket))
                case Start(number, key):
                    facts = next(f for f in self.variants if f.key == key)
                    self.live[number] = Process(facts)
                    self.lives[number] = Life(key, self.now)
                    self._clock.at(self.now + self.load_s[key], partial(self._get_ready, number))
                case Drain(number):
                    self.live[number].draining = True
                case Resume(number):
                    self.live[number].draining = False
                case Stop(number):
                    self.live[number].stopping = True
                    self._clock.at(self.now + STOP_S, partial(self._exit, number))
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

    @property
    def now(self) -> float:
        return self._clock.now

    def run(self) -> None:
        """To the end: until no client asks any more."""
        self._clock.run(self.subject, lambda: self._tell(TimePassed()), lambda: False)
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

    # -- the order ---------------------------------------------------------------------------

    def overtakers(self, wait: Wait) -> Counter[str]:
        """How often each other client was granted an engine that holds the ticket, for what it
        asked while the ticket waited; while a batch ticket had aged."""
        mine = wait.asked
        order = [ticket for ticket, _ in self.grants]
        if mine.ticket not in order:
            return Counter()
        before = self.grants[: order.index(mine.ticket)]
        others = [self.waits[ticket] for ticket, context in before if context >= mine.need]
        return Counter(
            other.asked.client
            for other in others
            if other.asked.model == mine.model
            and other.asked.client != mine.client
            and other.arrived > wait.since
        )
