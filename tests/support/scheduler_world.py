"""A world for the scheduler in which anything may happen, and in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.picture import picture
from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import PoolConfig
from trio_gateway.engine.scheduling.back_off import WAITED_OUT_S
from trio_gateway.engine.scheduling.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Event,
    Grant,
    How,
    Keep,
    LeaseReturned,
    Refusal,
    Reject,
    Resume,
    ShutDown,
    Start,
    Stop,
    TicketArrived,
    TicketGone,
    TimePassed,
    Unload,
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.preview import Preview
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.ticket_queue import Ticket


@dataclass
class Running:
    """An engine of the simulated world: a process that takes its time."""

    facts: VariantFacts
    context: int
    loading: bool = True
    draining: bool = False
    stopping: bool = False
    unloading: bool = False
    slots: int = 0
    shared_tokens: int | None = None
    leases: dict[int, int] = field(default_factory=dict)  # the need of each ticket

    @property
    def usable(self) -> bool:
        return not (self.loading or self.draining or self.stopping)


@dataclass
class World:
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
                self._check_start(self.variants[key])
                self.live[number] = Running(self.variants[key], self.context_of(key))
                self.starts += 1
            case Drain(number):
                engine = self.live[number]
                assert engine.leases, "it could be stopped at once"
                assert engine.usable
                engine.draining = True
            case Resume(number):
                engine = self.live[number]
                assert engine.draining
                assert not engine.stopping
                assert not engine.unloading
                assert not self.closing
                engine.draining = False
            case Stop(number):
                engine = self.live[number]
                assert not engine.leases
                assert not engine.stopping
                may_stop = self.closing or engine.unloading
                assert not (engine.loading and self._is_wanted(engine)) or may_stop
                engine.stopping = True

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

    def _check_start(self, facts: VariantFacts) -> None:
        assert not self.closing
        assert any(
            t.model == facts.key.model and t.need <= self.context_of(facts.key)
            for t in self.waiting.values()
        ), "nobody waits for it"
        assert facts.endpoint is None or facts.endpoint not in {
            e.facts.endpoint for e in self.live.values()
        }
        pool = self.pools[facts.pool]
        together = [e.facts for e in self.live.values() if e.facts.pool == pool.name] + [facts]
        assert len(together) <= pool.engines
        if pool.memory_bytes is not None:
            known = [self._memory_of(each) for each in together]
            fits = None not in known and sum(k or 0 for k in known) <= pool.memory_bytes
            assert fits or len(together) == 1, "only alone"

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

    # -- what may happen ---------------------------------------------------------------------

    def arrive(self, model: str, need: int, headroom: int, client: str, priority: Priority) -> None:
        start_need = need + headroom if headroom else 0
        event = TicketArrived(self.next_ticket, model, need, client, priority, start_need)
        self.next_ticket += 1
        self.waiting[event.ticket] = event
        engine, foreseen = self._engine_with_slot_for(event), self._preview(event)
        actions = self.take_in(event)
        if self.closing:
            return
        if engine is not None:
            assert event.ticket in self.live[engine].leases, "it had a slot"
            assert foreseen.expected_wait_s == 0
        for action in actions:
            self._check_preview(foreseen, event.ticket, action)
        if foreseen.pause is not None:
            assert event.ticket not in self.leases
            assert (event.ticket in self.waiting) == foreseen.pause.is_waited_out or any(
                isinstance(a, Reject) and a.refusal is Refusal.QUEUE_FULL for a in actions
            )

    def _engine_with_slot_for(self, asked: TicketArrived) -> int | None:
        state = self.subject.state
        ticket = Ticket(asked.ticket, asked.model, asked.need, "", asked.priority, self.now)
        if (sizes := state.variants.sizes_for(ticket)) is None:
            return None
        ticket.size, ticket.start_size = sizes
        engine = state.engine_with_slot_for(ticket)
        return engine.id if engine is not None else None

    def _preview(self, asked: TicketArrived) -> Preview:
        before = picture(self.subject)
        foreseen = self.subject.preview(
            asked.model,
            asked.need,
            asked.start_need,
            self.now,
            client=asked.client,
            priority=asked.priority,
        )
        assert picture(self.subject) == before, "a dry run changed something"
        return foreseen

    def _check_preview(self, foreseen: Preview, newcomer: int, action: Action) -> None:
        """What the arrival brought is what was foreseen."""
        match action:
            case Grant(ticket, number) if ticket == newcomer:
                assert foreseen.how is How.REUSED
                assert foreseen.variant == self.live[number].facts.key
            case Start(number, key):
                assert foreseen.variant == key
                assert foreseen.evicts == self.subject.state.engines[number].evicted
            case Drain(number, reason) | Stop(number, reason):
                if reason.startswith(f"swap to {foreseen.variant}"):
                    assert self.live[number].facts.key in foreseen.evicts
                    assert foreseen.how is How.SWAPPED
            case Reject(ticket, refusal) if ticket == newcomer:
                # Whether the queue is full has nothing to do with engines.
                refused = {Refusal.TOO_LARGE, Refusal.BACK_OFF, Refusal.QUEUE_FULL}
                assert refusal in refused
                assert (refusal is Refusal.TOO_LARGE) == (foreseen.variant is None)
                assert refusal is not Refusal.BACK_OFF or foreseen.pause is not None

    def client_leaves(self, choice: int) -> None:
        if self.waiting:
            ticket = sorted(self.waiting)[choice % len(self.waiting)]
            self._end(ticket)
            self.take_in(TicketGone(ticket))

    def engine_gets_ready(
        self, choice: int, slots: int, percent: int, shared_percent: int | None
    ) -> None:
        if (number := self._pick(choice, lambda e: e.loading)) is not None:
            engine = self.live[number]
            context = engine.facts.context * percent // 100
            engine.loading, engine.slots, engine.context = False, slots, context
            if shared_percent is not None:
                engine.shared_tokens = context * shared_percent // 100
            self.contexts[engine.facts.key] = context
            for other in self.live.values():
                if other.loading and other.facts.key == engine.facts.key:
                    other.context = context  # what this one says, that one will
            self.take_in(EngineReady(number, slots, context, engine.shared_tokens))

    def start_fails(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: e.loading)) is not None:
            del self.live[number]
            self.take_in(EngineFailed(number, "boom", timed_out=bool(choice % 2)))

    def engine_exits(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: e.stopping)) is not None:
            del self.live[number]
            self.take_in(EngineExited(number))

    def engine_crashes(self, choice: int) -> None:
        if (number := self._pick(choice, lambda e: not e.loading)) is not None:
            del self.live[number]
            self.take_in(EngineExited(number, "crashed"))

    def engine_is_measured(self, choice: int, memory_bytes: int) -> None:
        if (number := self._pick(choice, lambda e: True)) is not None:
            key = self.live[number].facts.key
            self.measured[key] = max(memory_bytes, self.measured.get(key, 0))
            self.take_in(EngineMeasured(number, memory_bytes))

    def lease_ends(self, choice: int) -> None:
        if self.leases:
            ticket = self.leases.pop(choice % len(self.leases))
            for engine in self.live.values():
                engine.leases.pop(ticket, None)
            self.take_in(LeaseReturned(ticket))

    def is_unloaded(self, model: str) -> None:
        for engine in self.live.values():
            engine.unloading = engine.unloading or engine.facts.key.model == model
        self.take_in(Unload(model))
        for engine in self.live.values():
            asked = engine.facts.key.model == model and engine.unloading
            assert not asked or engine.draining or engine.stopping

    def is_kept(self, model: str, idle_timeout_s: float | None, pinned: bool) -> None:
        self.take_in(Keep(model, idle_timeout_s, pinned))

    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.subject.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.take_in(TimePassed())
            after = self.subject.next_deadline()
            assert after is None or after > self.now, "the timer would spin"
        self.now = max(self.now, until)

    def shut_down(self) -> None:
        self.closing = True
        self.take_in(ShutDown())

    def _pick(self, choice: int, of: Callable[[Running], bool]) -> int | None:
        numbers = [number for number, engine in sorted(self.live.items()) if of(engine)]
        return numbers[choice % len(numbers)] if numbers else None

    # -- the end -----------------------------------------------------------------------------

    def come_to_rest(self, order: random.Random) -> None:
        """From here on all starts succeed and all leases end, in any order, and no time passes once
        all pauses are over: nothing but progress may be needed for every ticket to end."""
        self.time_passes(WAITED_OUT_S)
        starts_allowed = self.starts + 2 * len(self.waiting) + len(self.live)
        while any(e.loading or e.stopping for e in self.live.values()) or self.leases:
            moves: list[Callable[[int], None]] = []
            if self.leases:
                moves.append(self.lease_ends)
            if any(e.loading and not e.stopping for e in self.live.values()):
                moves.append(self._finish_load)
            if any(e.stopping for e in self.live.values()):
                moves.append(self.engine_exits)
            order.choice(moves)(order.randrange(1000))
            assert self.starts <= starts_allowed, "engines start and stop without serving"
        assert not self.waiting, "tickets wait, and nothing is under way for them"

    def _finish_load(self, choice: int) -> None:
        number = self._pick(choice, lambda e: e.loading and not e.stopping)
        assert number is not None
        engine = self.live[number]
        engine.loading, engine.slots = False, 1 + choice % 3
        engine.shared_tokens = engine.context if choice % 2 else None
        self.take_in(EngineReady(number, engine.slots, engine.context, engine.shared_tokens))
