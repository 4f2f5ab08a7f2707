"""A virtual clock that plays clients and engines to a scheduler, and notes who waited how long.

A load takes the model's load time, a stop `STOP_S`, a lease the request's
service time. Everything follows from the trace, so the same trace gives the same run.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from benchmarks.policies import Policy
from tests.support.virtual_clock import VirtualClock
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.events import (
    Action,
    EngineExited,
    EngineReady,
    Event,
    Grant,
    LeaseReturned,
    Reject,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)

STOP_S = 0.5
CONTEXT = 4096
POOL = "primary"
NEVER_IDLE_S = 1e9  # idle stops are not what is compared
NO_LIMIT = 10**9
# Deadlines are sums of floats: a timer that is due in less than this is due now.
CLOCK_GRAIN_S = 1e-9


class Request(NamedTuple):
    """Asked for when both have passed: `apart_s` since the client's last question (or the
    beginning), and `pause_s` since its last answer. It leaves after `patience_s` of waiting."""

    model: str
    service_s: float
    apart_s: float = 0.0
    pause_s: float = 0.0
    patience_s: float = math.inf


class Client(NamedTuple):
    """Asks one request after the other. Arrivals at fixed times are clients of one request.

    `key`: who the scheduler takes it for, as several loops of an agent are one client to it; by
    default its name.
    """

    name: str
    requests: tuple[Request, ...]
    key: str = ""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """`load_s`: by model. `slots`: of each engine. `pools` share the models and engines evenly."""

    load_s: Mapping[str, float]
    clients: tuple[Client, ...]
    slots: int
    engines: int = 1
    pools: int = 1


class Served(NamedTuple):
    """A request that was granted an engine. Times in seconds of the virtual clock."""

    client: str
    model: str
    arrived_at: float
    granted_at: float
    ended_at: float

    @property
    def wait_s(self) -> float:
        return self.granted_at - self.arrived_at

    @property
    def service_s(self) -> float:
        return self.ended_at - self.granted_at


class Load(NamedTuple):
    model: str
    began_at: float
    ready_at: float


class Run(msgspec.Struct):
    """How a trace went. `log`: every event with its time, in order."""

    served: list[Served] = []
    loads: list[Load] = []
    stops: int = 0
    left: int = 0
    rejected: list[str] = []
    log: list[tuple[Event, float]] = []

    @property
    def swaps(self) -> int:
        """Engines stop for a swap only, as they never count as idle."""
        return self.stops

    @property
    def makespan_s(self) -> float:
        return max(request.ended_at for request in self.served)


class _Asked(NamedTuple):
    client: Client
    request: Request
    at: float


def facts_of(trace: Trace) -> list[VariantFacts]:
    return [
        VariantFacts(
            key=VariantKey(model, "only"),
            pool=_pool(number % trace.pools),
            context=CONTEXT,
            parallel=trace.slots,
            idle_timeout_s=NEVER_IDLE_S,
            load_time_s=load_s,
        )
        for number, (model, load_s) in enumerate(trace.load_s.items())
    ]


def pools_of(trace: Trace) -> dict[str, PoolConfig]:
    names = map(_pool, range(trace.pools))
    return {name: PoolConfig(name, trace.engines // trace.pools) for name in names}


def _pool(number: int) -> str:
    return f"{POOL} {number + 1}" if number else POOL


class _Enough(Exception):
    """There were as many events as were asked for."""


class Simulation:
    """One run of a trace under a policy.

    Args:
        window_s: the fairness window, for the policies that have one.
        queue_timeout_s: when a ticket is given up by the gateway; by default never.
        events: it ends after that many; by default, when nothing is to come.
    """

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        *,
        window_s: float,
        queue_timeout_s: float = math.inf,
        events: float = math.inf,
    ) -> None:
        self._trace = trace
        self.scheduler = policy(
            facts_of(trace),
            pools_of(trace),
            queue_limit=NO_LIMIT,
            queue_timeout_s=queue_timeout_s,
            fairness_window_s=window_s,
        )
        self.run, self._events = Run(), events
        self._clock = VirtualClock(CLOCK_GRAIN_S)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Asked] = {}
        self._next: dict[str, int] = {}  # by client: how many requests it has asked
        self._models: dict[int, str] = {}  # by engine
        self._began: dict[int, float] = {}  # engines that are loading

    def play(self) -> Run:
        """Run to the end.

        Raises:
            AssertionError: a ticket waits though nothing will ever happen any more.
        """
        for client in self._trace.clients:
            self._ask_next(client, asked_at=0.0)
        with contextlib.suppress(_Enough):
            self._clock.run(
                self.scheduler, lambda: self._tell(TimePassed()), lambda: bool(self._waiting)
            )
        return self.run

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._clock.at(self._clock.now + seconds, call)

    def _tell(self, event: Event) -> None:
        if len(self.run.log) >= self._events:
            raise _Enough
        self.run.log.append((event, self._clock.now))
        for action in self.scheduler.handle(event, self._clock.now):
            self._carry_out(action)

    # -- clients -------------------------------------------------------------------------------

    def _ask_next(self, client: Client, *, asked_at: float) -> None:
        number = self._next.get(client.name, 0)
        if number == len(client.requests):
            return
        self._next[client.name] = number + 1
        request = client.requests[number]
        wait_s = max(asked_at + request.apart_s - self._clock.now, request.pause_s)
        self._after(wait_s, lambda: self._ask(client, request))

    def _ask(self, client: Client, request: Request) -> None:
        ticket = next(self._numbers)
        self._waiting[ticket] = _Asked(client, request, self._clock.now)
        if math.isfinite(request.patience_s):
            self._after(request.patience_s, lambda: self._leave(ticket))
        self._tell(TicketArrived(ticket, request.model, 1, client.key or client.name))

    def _leave(self, ticket: int) -> None:
        if (asked := self._waiting.pop(ticket, None)) is not None:
            self.run.left += 1
            self._tell(TicketGone(ticket))
            self._ask_next(asked.client, asked_at=asked.at)

    def _answered(self, ticket: int, asked: _Asked) -> None:
        self._tell(LeaseReturned(ticket))
        self._ask_next(asked.client, asked_at=asked.at)

    # -- engines -------------------------------------------------------------------------------

    def _carry_out(self, action: Action) -> None:
        match action:
            case Grant(ticket):
                asked = self._waiting.pop(ticket)
                ends_at = self._clock.now + asked.request.service_s
                name, model = asked.client.name, asked.request.model
                self.run.served.append(Served(name, model, asked.at, self._clock.now, ends_at))
                self._after(asked.request.service_s, lambda: self._answered(ticket, asked))
            case Start(engine, key):
                self._models[engine], self._began[engine] = key.model, self._clock.now
                self._after(self._trace.load_s[key.model], lambda: self._ready(engine))
            case Stop(engine):
                self.run.stops += 1
                self._began.pop(engine, None)
                self._after(STOP_S, lambda: self._tell(EngineExited(engine)))
            case Reject(ticket, refusal):
                asked = self._waiting.pop(ticket)
                self.run.rejected.append(refusal.name)
                self._ask_next(asked.client, asked_at=asked.at)
            case _:
                pass  # a drain has no effect but on what the scheduler grants

    def _ready(self, engine: int) -> None:
        began_at = self._began.pop(engine, None)
        if began_at is not None:  # otherwise the load was given up
            self.run.loads.append(Load(self._models[engine], began_at, self._clock.now))
            self._tell(EngineReady(engine, self._trace.slots, CONTEXT))
