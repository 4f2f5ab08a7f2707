"""EngineManager: owns the nursery in which every engine lives, and carries out what is decided.

A request asks for a lease and waits for its ticket; each event (a ticket, an engine that got
ready, a lease given back, time) goes through `_dispatch`, which asks the scheduler and does what
it says. `_dispatch` never waits, so the scheduler's state changes in one step, whoever calls.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial

import trio

from trio_gateway.bus import Bus
from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.configured import Configured, retimed
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.engine_factory import EngineFactory
from trio_gateway.engine.errors import EngineUnloaded, ExchangeAborted
from trio_gateway.engine.happenings import Change, ModelKept, Reloaded
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.lease import LeaseRequest, Recount
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.engine.lines import EngineLines
from trio_gateway.engine.memory_watch import MemoryWatch
from trio_gateway.engine.news import EngineNews
from trio_gateway.engine.on_clusters import OnClusters
from trio_gateway.engine.others import Others
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.process.memory_meter import MemoryMeter
from trio_gateway.engine.process.process import Launcher, open_engine_process
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.engine.process.runs import Runs
from trio_gateway.engine.recounting import Recounting
from trio_gateway.engine.remembering import Remembering
from trio_gateway.engine.scheduling.events import (
    Action,
    CountAgain,
    Drain,
    EndAnswer,
    EngineExited,
    EngineFailed,
    Event,
    Grant,
    Keep,
    LeaseReturned,
    Reject,
    Resume,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    Unload,
    VariantKey,
)
from trio_gateway.engine.scheduling.memory_events import (
    Look,
    YieldEnded,
    YieldReady,
)
from trio_gateway.engine.scheduling.progress import AnswerProgress
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.waiting import Waiting
from trio_gateway.engine.yields import Yields
from trio_gateway.run_clock import run_clock

log = logging.getLogger(__name__)


class EngineManager:
    """Run `run` in a task; `lease` works until the shutdown. `overview` answers questions.

    Args:
        config: the models, pools and limits.
        launch: opens an engine's process; a test may pass a fake, without reaper and meter.
        kinds: by the name of its type, what is known of such engines; a test may pass fakes.
        scheduler: what decides; a benchmark may pass another policy.
        bus: is told of EngineChanged and Refused.
        ledger: where what is measured is kept beyond this run; None: nowhere.
        runs: of this one and of those before; None: they are not told of each other.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        launch: Launcher | None = None,
        kinds: Mapping[str, EngineKind] | None = None,
        scheduler: Callable[..., Scheduler] = Scheduler,
        bus: Bus | None = None,
        ledger: LedgerFile | None = None,
        runs: Runs | None = None,
    ) -> None:
        self.bus = bus or Bus()
        self.lines = EngineLines(self.bus)
        self.reaper: Reaper | None = None
        self.meter: MemoryMeter | None = None
        if launch is None:
            self.reaper = Reaper(config.secret_variables, runs, config.source)
            self.meter = MemoryMeter()
            launch = partial(open_engine_process, reaper=self.reaper, keep=self.lines.keep)
        self._configured = Configured(config, kinds)
        self._scheduler = scheduler(
            self._configured.facts(),
            config.pools,
            queue_limit=config.server.queue_limit,
            queue_timeout_s=config.server.queue_timeout_s,
            fairness_window_s=config.server.fairness_window_s,
        )
        self.kv = KvCarryover(config.server.kv_carryover)
        self._recounting = Recounting(self._dispatch)
        self._saved_tokens: dict[VariantKey, int] = {}  # when an engine of it was stopped last
        self._requests: dict[int, LeaseRequest] = {}
        self.engines: dict[int, Engine] = {}  # those that are not gone
        self._news = EngineNews(self.bus, self.engines, self._configured.pools)
        saves_kv, known = config.server.kv_carryover is not None, self._configured.kinds
        self.overview = Overview(self._scheduler, self.engines, known, saves_kv=saves_kv)
        self.remembering = Remembering(
            ledger, self._configured, self.engines, self.kv, self.bus, self._dispatch
        )
        self._on_clusters = OnClusters(self._configured, self.lease)
        read_group, state = None, self._scheduler.state
        self.others: Others | None = None
        if self.meter is not None:
            read_group = self.meter.read
            self.others = Others(self.meter.hardware, self._configured, self.engines, state)
        self._watch = MemoryWatch(self.others, state, self._dispatch)
        self.yields = Yields(state, self._dispatch, self._watch, self.bus)
        self._factory = EngineFactory(
            self._configured, launch, self.kv, self.overview, self._requests, read_group,
            self.others, self._on_clusters,
        )  # fmt: skip
        self._ticket_numbers = itertools.count(1)
        self._nursery: trio.Nursery | None = None
        self._timer, self._wakes_at = trio.CancelScope(), math.inf
        self._now = run_clock()
        self._closing = False
        self.stopped = trio.Event()  # after a shutdown: no engine is left

    # -- running ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the engines until a shutdown has ended the last one, or until cancelled, which
        kills them at once. The reaper outlives them all."""
        self._now = run_clock()
        async with trio.open_nursery() as around:
            if self.reaper is not None:
                await around.start(self.reaper.run)
            await around.start(self.kv.run)  # outlives the engines: their last files are for it
            await around.start(self.remembering.run)
            around.start_soon(self._on_clusters.run)
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._keep_time)
                self._nursery.start_soon(self._watch.run)
                task_status.started()
                await self.stopped.wait()
                self._nursery.cancel_scope.cancel(reason="all engines are stopped")
            around.cancel_scope.cancel(reason="all engines are stopped")

    def begin_shutdown(self) -> None:
        """Reject all tickets; stop each engine as soon as its leases are back."""
        if not self._closing:
            self._closing = True
            self.kv.begin_shutdown()
            self.yields.close("the gateway is stopping")
            self._dispatch(ShutDown())

    def abort_leases(self, reason: str) -> None:
        """End every request under way at its engine; each gets ExchangeAborted."""
        for engine in self.engines.values():
            engine.abort_requests(ExchangeAborted(reason))

    def kill_engines(self, reason: str) -> None:
        """No more waiting: cancel every engine's task, which kills its process group."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)
        self.stopped.set()

    async def _keep_time(self) -> None:
        while True:
            self._wakes_at = self._scheduler.wakes_at
            with trio.CancelScope(deadline=self._wakes_at) as self._timer:
                await trio.sleep_forever()
            self._dispatch(TimePassed())

    # -- leases -------------------------------------------------------------------------------

    def lease(
        self,
        model: ModelConfig,
        need: int,
        *,
        start_need: int = 0,
        client: str = "",
        priority: Priority = Priority.INTERACTIVE,
        prompt: Prompt | None = None,
        read_bytes: int | None = None,
        progress: AnswerProgress | None = None,
        least_need: int | None = None,
        recount: Recount | None = None,
    ) -> LeaseRequest:
        """`async with` it: wait for an engine of `model` whose context holds `need` tokens.

        Args:
            start_need: tokens that an engine should hold that is started for this; 0: the need.
            client: free slots go to these in turn.
            prompt: the request itself, so that its conversation's KV cache can be found.
            read_bytes: the size of a request for which nothing is generated; None: something is.
            progress: how far its answer is, if that can be told.
            least_need: what an exact count may make of the need, by `recount`; None: it is exact.
        """
        number = next(self._ticket_numbers)
        event = TicketArrived(
            number, model.name, need, client, priority, start_need, read_bytes, least_need,
            progress=progress,
        )  # fmt: skip
        return LeaseRequest(event, prompt, self, recount)

    def take_in(self, request: LeaseRequest) -> None:
        self._requests[request.event.ticket] = request
        request.arrived_at = now = self._now()
        self._dispatch(request.event, now)

    def let_go(self, request: LeaseRequest) -> None:
        ticket = request.event.ticket
        del self._requests[ticket]
        self._dispatch(TicketGone(ticket) if request.lease is None else LeaseReturned(ticket))

    def waiting(self, ticket: int) -> Waiting | None:
        return self.overview.waiting(ticket)

    # -- keeping and unloading models ---------------------------------------------------------

    async def unload(self, model: str, *, force: bool = False) -> int:
        """End the model's engines and wait until they are gone; how many there were.

        Args:
            force: end the requests under way as well; each gets ExchangeAborted.
        """
        engines = [e for e in self.engines.values() if e.key.model == model]
        self._dispatch(Unload(model, force))
        if force:
            for engine in engines:
                engine.abort_requests(EngineUnloaded(f"{model} was unloaded"))
        for engine in engines:
            await engine.gone.wait()
        return len(engines)

    def begin_unload(self, model: str) -> None:
        """End the model's engines, each once its requests are done, without waiting for that."""
        self._dispatch(Unload(model))

    def keep(self, model: str, *, idle_timeout_s: float | None, pinned: bool) -> None:
        """How long its engines stay loaded from now on; see Keep."""
        self._dispatch(Keep(model, idle_timeout_s, pinned))
        self.bus.publish(ModelKept(model))

    def reconfigure(self, config: GatewayConfig) -> None:
        """Go by another configuration from now on. Engines of unchanged variants live on, the
        others finish what runs; requests that wait are looked at again. The folder of saved KV
        caches stays what it was."""
        event = self._configured.take_over(config)
        for engine in self.engines.values():
            if (found := self._configured.variants.get(engine.key)) is not None:
                engine.variant = retimed(engine.variant, found[1])
        self._dispatch(event)
        self._watch.wake()
        self.bus.publish(Reloaded(event.changed))

    # -- carrying out -------------------------------------------------------------------------

    def _dispatch(self, event: Event, now: float | None = None) -> None:
        now = self._now() if now is None else now
        for action in self._scheduler.handle(event, now):
            self._carry_out(action, now)
        # A later one is found when the timer wakes up. Each request makes its engine's idle stop
        # later, and to set the deadline at its start and its end would cost 6 µs.
        if (wakes_at := self._scheduler.wakes_at) < self._wakes_at:
            self._wakes_at = self._timer.deadline = wakes_at
        if self._closing and not self.engines:
            self.stopped.set()
        if self.yields.is_waited_for:
            self.yields.note_progress()

    def _carry_out(self, action: Action, now: float) -> None:
        match action:
            case Grant(ticket, engine):
                evicted = action.evicted
                saved = sum(self._saved_tokens.get(key, 0) for key in evicted) if evicted else 0
                self._requests[ticket].grant(action, self.engines[engine], saved, now)
            case EndAnswer(ticket, _, after_s):
                self._requests[ticket].end_answer(after_s)
            case Reject(ticket):
                self._news.refused(self._requests[ticket].event.model, action)
                self._requests[ticket].refuse(action)
            case CountAgain(ticket):
                assert self._nursery is not None, "an engine runs"
                self._recounting.begin(self._requests[ticket], self._nursery)
            case Start():
                self._start(action)
            case Look(pool):
                self._watch.look(pool)
            case YieldReady(number):
                self.yields.note_ready(number)
            case YieldEnded(number, reason):
                self.yields.note_ended(number, reason)
            case Drain(engine, reason, cause):
                log.info("%s: draining, %s", self.engines[engine].key, reason)
                self._news.tell(engine, Change.DRAINING, reason, cause=cause)
            case Resume(engine, reason):
                log.info("%s: takes requests again, %s", self.engines[engine].key, reason)
                self._news.tell(engine, Change.RESUMED, reason)
            case Stop(engine, reason, cause):
                log.info("%s: stopping, %s", self.engines[engine].key, reason)
                self._news.tell(engine, Change.STOPPING, reason, cause=cause)
                self.engines[engine].stop()

    def _start(self, action: Start) -> None:
        assert self._nursery is not None, "EngineManager.run is not running"
        number, key = action.engine, action.variant
        where = f" on {', '.join(action.devices)}" if action.devices else ""
        log.info("%s: start decided%s, %s", key, where, action.reason)
        engine = self._factory.make(number, key, action.devices, self._report)
        self.engines[number] = engine
        self.lines.begin(number, key)
        evicted = self._scheduler.state.engines[number].evicted
        self._news.tell(number, Change.STARTING, action.reason, evicted=evicted)
        self._nursery.start_soon(engine.run, name=f"engine {key}")

    def _report(self, event: Event) -> None:
        """Called by the engines."""
        # Gone engines leave the table first: the scheduler may start their successor.
        self._news.reported(event)
        if isinstance(event, EngineExited | EngineFailed):
            engine = self.engines.pop(event.engine)
            self.lines.end(event.engine)
            if engine.kv is not None:
                self._saved_tokens[engine.key] = engine.kv.saved_tokens
        self._dispatch(event)
