"""EngineManager: owns the nursery in which every engine lives, and carries out the scheduler.

A request asks for a lease and waits for its ticket; each event (a ticket, an engine that got
ready, a lease given back, time) goes through `_dispatch`, which asks the scheduler and does what
it says. `_dispatch` never waits, so the scheduler's state changes in one step, whoever calls.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_gateway.config.schema import EngineType, GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.engine import platform
from trio_gateway.engine.engine import Engine, Launcher, fixed_address
from trio_gateway.engine.engine_client import EngineClient
from trio_gateway.engine.engine_process import open_engine_process
from trio_gateway.engine.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    Event,
    Grant,
    LeaseReturned,
    Reject,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.http_exchange import ExchangeAborted
from trio_gateway.engine.llamacpp_engine import LlamaCppEngine
from trio_gateway.engine.scheduler import Scheduler

log = logging.getLogger(__name__)

CLIENT_TYPES: dict[EngineType, type[EngineClient]] = {
    EngineType.LLAMACPP: LlamaCppEngine,
    EngineType.LLAMACPP_SECONDARY: LlamaCppEngine,
}


class LeaseRefused(Exception):
    """No engine for this request; `reject` says why and when to come again."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


class Lease:
    """A request's hold on a running engine, with the seconds that it waited.

    `load_s` is the part of the wait in which the engine was loading, `queue_s` the rest.
    """

    def __init__(self, engine: Engine, arrived_at: float) -> None:
        self.engine = engine
        waited_s = trio.current_time() - arrived_at
        ready_at = engine.ready_at or arrived_at
        self.load_s = max(ready_at - max(arrived_at, engine.started_at), 0.0)
        self.queue_s = max(waited_s - self.load_s, 0.0)

    @property
    def client(self) -> EngineClient:
        return self.engine.client


class _Waiter:
    """Where a request waits for its ticket."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.engine: Engine | None = None
        self.reject: Reject | None = None


class EngineManager:
    """Run `run` in a task; `lease` works from then until the shutdown.

    Args:
        config: the models, pools and limits.
        launch: opens an engine's process; a test may pass a fake, which needs no reaper.
        client_types: the client for each engine type; a test may pass a fake.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        launch: Launcher | None = None,
        client_types: dict[EngineType, type[EngineClient]] = CLIENT_TYPES,
    ) -> None:
        self.reaper: platform.Reaper | None = None
        if launch is None:
            self.reaper = platform.Reaper()
            launch = partial(open_engine_process, reaper=self.reaper)
        self._launch: Launcher = launch
        self._client_types = client_types
        self._variants: dict[VariantKey, tuple[ModelConfig, VariantConfig]] = {}
        facts = []
        for model in config.models:
            for variant in model.variants:
                key = VariantKey(model.name, variant.name)
                self._variants[key] = (model, variant)
                facts.append(self._facts(key, model, variant))
        self.scheduler = Scheduler(
            facts,
            {pool.name: pool.engines for pool in config.pools.values()},
            queue_limit=config.server.queue_limit,
            queue_timeout_s=config.server.queue_timeout_s,
        )
        self._waiters: dict[int, _Waiter] = {}
        self._engines: dict[int, Engine] = {}
        self._ticket_numbers = itertools.count(1)
        self._ports_in_use: set[int] = set()
        self._nursery: trio.Nursery | None = None
        self._timer = trio.CancelScope()
        self._closing = False
        self.stopped = trio.Event()  # after a shutdown: no engine is left

    def _facts(self, key: VariantKey, model: ModelConfig, variant: VariantConfig) -> VariantFacts:
        fixed = fixed_address(variant, self._client_types[model.engine])
        endpoint = f"{fixed[0]} {fixed[1]}" if fixed else None
        return VariantFacts(
            key=key,
            pool=model.pool,
            context=variant.context,
            parallel=variant.parallel,
            endpoint=endpoint,
            idle_timeout_s=variant.timeouts.idle_s,
            pinned=model.pinned,
        )

    # -- running ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the engines until a shutdown has ended the last one, or until cancelled, which
        kills them at once. The reaper outlives them all."""
        async with trio.open_nursery() as around:
            if self.reaper is not None:
                await around.start(self.reaper.run)
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._keep_time)
                task_status.started()
                await self.stopped.wait()
                self._nursery.cancel_scope.cancel(reason="all engines are stopped")
            around.cancel_scope.cancel(reason="all engines are stopped")

    def begin_shutdown(self) -> None:
        """Reject all tickets; stop each engine as soon as its leases are back."""
        if not self._closing:
            self._closing = True
            self._dispatch(ShutDown())

    def abort_leases(self, reason: str) -> None:
        """End every request under way at its engine; each gets ExchangeAborted."""
        for engine in self._engines.values():
            engine.abort(ExchangeAborted(reason))

    def kill_engines(self, reason: str) -> None:
        """No more waiting: cancel every engine's task, which kills its process group."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)
        self.stopped.set()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._next_deadline()) as self._timer:
                await trio.sleep_forever()
            self._dispatch(TimePassed())

    def _next_deadline(self) -> float:
        deadline = self.scheduler.next_deadline()
        return math.inf if deadline is None else deadline

    # -- leases -------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, model: ModelConfig, need: int) -> AsyncIterator[Lease]:
        """Wait for an engine of `model` whose context holds `need` tokens, and hold it.

        Raises:
            LeaseRefused: the queue is full, the start failed, the gateway stops, …
        """
        number, waiter = next(self._ticket_numbers), _Waiter()
        arrived_at = trio.current_time()
        self._waiters[number] = waiter
        try:
            self._dispatch(TicketArrived(number, model.name, need))
            if not waiter.decided.is_set():
                await waiter.decided.wait()
            if waiter.reject is not None:
                raise LeaseRefused(waiter.reject)
            assert waiter.engine is not None
            yield Lease(waiter.engine, arrived_at)
        finally:
            del self._waiters[number]
            if waiter.engine is not None:
                self._dispatch(LeaseReturned(waiter.engine.number))
            elif waiter.reject is None:
                self._dispatch(TicketGone(number))

    def contexts_of(self, model: str) -> list[int]:
        """Tokens that one request gets in each variant of the model, the smallest first."""
        return self.scheduler.contexts(model)

    def endpoints_of(self, model: ModelConfig) -> frozenset[str]:
        """What the model's type of engine serves."""
        return self._client_types[model.engine].get_supported_endpoints()

    def engine_of(self, model: str) -> Engine | None:
        """The ready engine of this model with the largest context."""
        view = self.scheduler.running(model)
        return self._engines.get(view.id) if view else None

    # -- carrying out -------------------------------------------------------------------------

    def _dispatch(self, event: Event) -> None:
        for action in self.scheduler.handle(event, trio.current_time()):
            self._carry_out(action)
        self._timer.deadline = self._next_deadline()
        if self._closing and not self._engines:
            self.stopped.set()

    def _carry_out(self, action: Action) -> None:
        match action:
            case Grant(ticket, engine):
                self._waiters[ticket].engine = self._engines[engine]
                self._waiters[ticket].decided.set()
            case Reject(ticket):
                self._waiters[ticket].reject = action
                self._waiters[ticket].decided.set()
            case Start(number, key, reason):
                self._start(number, key, reason)
            case Drain(engine, reason):
                log.info("%s: draining, %s", self._engines[engine].key, reason)
            case Stop(engine, reason):
                log.info("%s: stopping, %s", self._engines[engine].key, reason)
                self._engines[engine].stop()

    def _start(self, number: int, key: VariantKey, reason: str) -> None:
        assert self._nursery is not None, "EngineManager.run is not running"
        model, variant = self._variants[key]
        log.info("%s: start decided, %s", key, reason)
        engine = Engine(
            number,
            key,
            variant,
            launch=self._launch,
            client_type=self._client_types[model.engine],
            ports_in_use=self._ports_in_use,
        )
        self._engines[number] = engine
        self._nursery.start_soon(self._run_engine, engine, name=f"engine {key}")

    async def _run_engine(self, engine: Engine) -> None:
        def report(event: Event) -> None:
            # Gone engines leave the table first: the scheduler may start their successor.
            if isinstance(event, EngineExited | EngineFailed):
                del self._engines[engine.number]
            self._dispatch(event)

        await engine.run(report)
