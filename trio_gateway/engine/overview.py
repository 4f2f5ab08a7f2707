"""Overview: what may be asked about models and engines. Nothing here changes anything.

Pages, and what chooses an engine for a request, ask here; only the manager and the scheduler
read the scheduler's state themselves.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import msgspec
import trio

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.resources import ModelRow, PoolRow, model_row, pool_rows
from trio_gateway.engine.scheduling.activity import activity_of
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad, model_load
from trio_gateway.engine.scheduling.preview import Preview
from trio_gateway.engine.scheduling.prospects import Prospects
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.sentence import sentence_of
from trio_gateway.engine.scheduling.ticket_queue import Ticket
from trio_gateway.engine.scheduling.waiting import Waiting, Waits
from trio_gateway.engine.sites.row import SiteRow
from trio_gateway.wall_clock import WallClock


class TicketRow(msgspec.Struct, frozen=True):
    """A request that waits. `position` 1 is the next; `expected_wait_s` None: not known.
    `back_off`: what it waits for failed, and is left alone for a while; None: it is not.
    `sentence`: what it waits for, what is in the way, and what comes then."""

    model: str
    need: int
    priority: str
    client: str
    waited_s: float
    position: int
    expected_wait_s: float | None
    back_off: str | None = None
    sentence: str = ""


class EngineRow(msgspec.Struct, frozen=True, kw_only=True):
    """An engine, from its start on. Times are seconds, None where there is none yet.

    `engine`: its number, which no other has in this run. `started_at_s`: Unix time. `next`: what it
    will do next, and when. `evicted`: what was stopped to make room for it. `speed`: tokens a
    second of its running answers together; None where none is seen.
    `load_s`: what its load took, or what it is expected to take; None: nobody knows, of a machine
    that is woken for the first time. `idle_s`: None while it has leases. `memory_bytes`: declared,
    measured or estimated; None: not known. `shared_tokens`: what all its requests share; None: each
    has its own. `kv_restored_tokens`: at its start. `waking`: its machine sleeps, and is being
    woken. `sites`: its URLs, of a remote model.
    """

    model: str
    variant: str
    pool: str
    state: str
    context: int
    slots: int | None
    leases: int
    pid: int | None
    port: int | None
    memory_bytes: int | None
    load_s: float | None
    loading_s: float | None
    idle_s: float | None
    shared_tokens: int | None
    kv_restored_tokens: int
    engine: int
    next: str
    pinned: bool
    evicted: tuple[str, ...]
    started_at_s: float
    speed: float | None
    waking: bool
    sites: tuple[SiteRow, ...] = ()


class LoadedEngine(msgspec.Struct, frozen=True):
    """A ready engine. `leaves_in_s`: when it is stopped if nothing more is asked of it; infinite:
    never. `memory_bytes` as in EngineRow."""

    model: str
    context: int
    memory_bytes: int | None
    leaves_in_s: float


class Overview:
    """Of one manager's scheduler and engines, which are looked at as they are when it is asked."""

    def __init__(
        self,
        scheduler: Scheduler,
        engines: Mapping[int, Engine],
        kinds: Mapping[str, EngineKind],
        *,
        saves_kv: bool = False,
    ) -> None:
        self._scheduler, self._state = scheduler, scheduler.state
        self._engines, self._kinds, self._saves_kv = engines, kinds, saves_kv
        # Tokens that one request gets in each variant of a model, the smallest first.
        self.contexts_of = self._state.variants.contexts
        # By model, of which configuration, and what was found; it takes long to find.
        self._carryover: dict[str, tuple[ModelConfig, bool | str]] = {}
        self._wall = WallClock()
        # Of models that other gateways have: what is in memory there, as they said last.
        self.elsewhere: Mapping[str, ModelLoad] = {}

    # -- models -------------------------------------------------------------------------------

    def context_of(self, key: VariantKey) -> int:
        """Tokens that one request gets in this variant."""
        variants = self._state.variants
        return next(variants.context_of(facts) for facts in variants[key.model] if facts.key == key)

    def endpoints_of(self, model: ModelConfig) -> frozenset[str]:
        """What the model's engines serve: as configured, or what their type implies."""
        if model.endpoints is not None:
            return model.endpoints
        return self._kinds[model.engine.value].endpoints

    def carryover_fault(self, model: ModelConfig, variant: VariantConfig) -> str | None:
        """Why nothing that an engine of the variant saves may be restored, if so."""
        args = EngineArgs(variant.args, {**os.environ, **variant.env})  # as it inherits them
        return self._kinds[model.engine.value].carryover_fault(args)

    def longest_answer_s(self, model: str) -> float:
        """An answer of it ends after so long, if others wait; infinite: it goes on, as does one of
        a model that a reload has taken away."""
        variants = self._state.variants.get(model)
        return variants[0].longest_answer_s if variants else math.inf

    def is_pinned(self, model: str) -> bool:
        return self._state.variants.is_pinned(self._state.variants[model][0])

    def engine_of(self, model: str) -> Engine | None:
        """The ready engine of this model with the largest context."""
        view = self._state.running(model)
        return self._engines.get(view.id) if view else None

    def engines_of(self, model: str) -> list[Engine]:
        """All of the model's engines that are not gone."""
        return [self._engines[view.id] for view in self._state.engines_of(model)]

    def load_of(self, model: str) -> ModelLoad:
        """What of the model is in memory, and what it has to do. Raises ModelGone."""
        keys = [facts.key for facts in self._state.variants[model]]
        has_failed = any(map(self._state.back_off.has_failed, keys))
        activity = activity_of(self._state, model, trio.current_time())
        if (there := self.elsewhere.get(model)) is not None:
            activity = msgspec.structs.replace(
                activity,
                runs=there.state is LoadState.LOADED,
                starts=there.state is LoadState.LOADING,
                fails=activity.fails or there.has_failed,
            )
            return msgspec.structs.replace(there, activity=activity)
        return model_load(self._state.engines_of(model), activity, has_failed=has_failed)

    # -- what waits, and what would -----------------------------------------------------------

    def waiting(self, ticket: int) -> Waiting | None:
        """What a ticket waits for, and may expect; None if it does not wait. `sentence_of` puts it
        into words."""
        waits = self._state.tickets.get(ticket)
        return None if waits is None else self._waits().of(waits)

    def all_waiting(self) -> dict[int, Waiting]:
        """The same of all tickets that wait, by their numbers, the oldest first: much cheaper than
        one after the other."""
        return self._waits().of_all(self._state.tickets.values())

    def _waits(self) -> Waits:
        return Waits(self._state, self._scheduler.window_s, trio.current_time())

    def preview(
        self, model: str, need: int, start_need: int, least_need: int | None = None
    ) -> Preview:
        """What would happen to a ticket if it came now."""
        now = trio.current_time()
        return self._scheduler.preview(model, need, start_need, now, least_need=least_need)

    def tickets(self) -> list[TicketRow]:
        """The waiting tickets, the oldest first."""
        now, tickets = trio.current_time(), self._state.tickets
        found = self.all_waiting().items()
        return [_ticket_row(tickets[number], waiting, now) for number, waiting in found]

    def queue_lengths(self) -> dict[tuple[str, ...], float]:
        """How many wait, by model and priority."""
        found: dict[tuple[str, ...], float] = {}
        for ticket in self._state.tickets.values():
            labels = (ticket.model, ticket.priority.word)
            found[labels] = found.get(labels, 0.0) + 1
        return found

    def longest_waits_s(self) -> dict[tuple[str, ...], float]:
        """For how long the oldest has waited, by model."""
        now, found = trio.current_time(), dict[tuple[str, ...], float]()
        for ticket in self._state.tickets.values():  # the oldest comes first
            found.setdefault((ticket.model,), now - ticket.arrived_at)
        return found

    def backing_off(self) -> dict[VariantKey, bool]:
        """Of all variants: whether it is left alone now, as it failed."""
        now, variants = trio.current_time(), self._state.variants
        keys = [facts.key for model in variants.all() for facts in model]
        return {key: self._state.back_off.pause(key, now) is not None for key in keys}

    # -- engines ------------------------------------------------------------------------------

    def engines(self) -> list[EngineRow]:
        """All engines that are not gone, in the order of their starts."""
        now = trio.current_time()
        prospects = Prospects(self._state, self._scheduler.window_s, now)
        return [self._row(view, prospects.of(view)) for view in self._state.engines.values()]

    def _row(self, view: EngineView, next_: str) -> EngineRow:
        now, engine = trio.current_time(), self._engines[view.id]
        ready_at = view.ready_at
        load_s: float | None
        if ready_at is None:
            forecast = self._state.forecast
            # How long a load takes says nothing of a machine that sleeps.
            load_s = (forecast.known_start_s if view.is_waking else forecast.start_s)(view)
        else:
            load_s = ready_at - view.started_at
        idle = ready_at is not None and not view.leases
        is_ready = view.state is EngineState.READY
        return EngineRow(
            model=view.key.model,
            variant=view.key.variant,
            pool=view.facts.pool,
            state=view.state.value,
            context=view.context,
            slots=view.slots or view.facts.parallel,
            leases=len(view.leases),
            pid=engine.pid,
            port=engine.launch.port,
            memory_bytes=self._state.variants.memory_of(view.facts),
            load_s=None if load_s is None else round(load_s, 3),
            loading_s=round(now - view.started_at, 3) if ready_at is None else None,
            idle_s=round(now - view.used_at, 3) if idle else None,
            shared_tokens=engine.info.shared_tokens if engine.info is not None else None,
            kv_restored_tokens=engine.kv.restored_tokens if engine.kv is not None else 0,
            engine=view.id,
            next=next_,
            pinned=self._state.variants.is_pinned(view.facts),
            evicted=tuple(map(str, view.evicted)),
            started_at_s=round(self._wall.unix(view.started_at), 2),
            speed=_speed(view, now),
            waking=view.is_waking and ready_at is None,
            sites=engine.client.site_rows(now, self._wall.unix(now)) if is_ready else (),
        )

    def pools(self) -> list[PoolRow]:
        return pool_rows(self._state)

    def model_row(self, model: ModelConfig) -> ModelRow:
        of, carryover = self._carryover.get(model.name, (None, False))
        if of is not model:
            carryover = self._find_carryover(model)
            self._carryover[model.name] = model, carryover
        row = model_row(self._state, model, carryover)
        there = self.elsewhere.get(model.name)
        return row if there is None else msgspec.structs.replace(row, state=there.word)

    def _find_carryover(self, model: ModelConfig) -> bool | str:
        kind = self._kinds[model.engine.value]
        if not (self._saves_kv and kind.has_slots and model.kv_carryover):
            return False
        faults = (self.carryover_fault(model, variant) for variant in model.variants)
        return next(filter(None, faults), True)

    def loaded(self) -> list[LoadedEngine]:
        """The engines that are ready, in the order of their starts."""
        views = self._state.engines.values()
        return [self._loaded(view) for view in views if view.state is EngineState.READY]

    def _loaded(self, view: EngineView) -> LoadedEngine:
        idle_s = 0.0 if view.leases else trio.current_time() - view.used_at
        return LoadedEngine(
            model=view.key.model,
            context=view.context,
            memory_bytes=self._state.variants.memory_of(view.facts),
            leaves_in_s=max(self._state.variants.idle_timeout_s(view.facts) - idle_s, 0.0),
        )


def _ticket_row(ticket: Ticket, waiting: Waiting, now: float) -> TicketRow:
    outlook, wait_s = waiting.outlook, waiting.expected_s
    return TicketRow(
        model=ticket.model,
        need=ticket.need,
        priority=ticket.priority.name.lower(),
        client=ticket.client,
        waited_s=round(now - ticket.arrived_at, 3),
        position=outlook.position,
        expected_wait_s=round(wait_s, 1) if wait_s is not None else None,
        back_off=str(outlook.pause) if outlook.pause is not None else None,
        sentence=sentence_of(waiting),
    )


def _speed(view: EngineView, now: float) -> float | None:
    running = [lease.progress for lease in view.leases.values() if lease.progress is not None]
    known = [speed for answer in running if (speed := answer.speed(now)) is not None]
    return round(sum(known), 1) if known else None
