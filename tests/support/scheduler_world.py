"""A world for the scheduler in which anything may happen, and in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tests.support.edits import Edit
from tests.support.memory_world import MemoryWorld, divided
from tests.support.picture import picture
from tests.support.scheduler_promises import Running
from tests.support.shared_memory import RESERVE
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.back_off import WAITED_OUT_S
from trio_gateway.engine.scheduling.events import (
    Action,
    Drain,
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Grant,
    How,
    Keep,
    LeaseReturned,
    Reconfigured,
    Recounted,
    Refusal,
    Reject,
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
from trio_gateway.engine.scheduling.ticket_queue import Ticket


@dataclass
class World(MemoryWorld):
    """Anything may happen in it; `come_to_rest` at the end."""

    # -- what may happen ---------------------------------------------------------------------

    def arrive(
        self,
        model: str,
        need: int,
        headroom: int,
        client: str,
        priority: Priority,
        least_percent: int | None = None,
    ) -> None:
        start_need = need + headroom if headroom else 0
        least = None if least_percent is None else need * least_percent // 100
        event = TicketArrived(
            self.next_ticket, model, need, client, priority, start_need, least_need=least
        )
        self.next_ticket += 1
        self.waiting[event.ticket] = self.asked[event.ticket] = event
        engine, foreseen = self._engine_with_slot_for(event), self._preview(event)
        actions = self.take_in(event)
        if self.closing:
            return
        if all(key.model != model for key in self.variants):
            (told,) = actions
            assert isinstance(told, Reject)
            assert told.refusal is Refusal.MODEL_GONE
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
        engine = state.engine_with_slot_for(ticket, ticket.size)
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
            least_need=asked.least_need,
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
            case Drain(number, reason, _) | Stop(number, reason, _):
                if reason.startswith(f"swap to {foreseen.variant}"):
                    assert self.live[number].facts.key in foreseen.evicts
                    assert foreseen.how is How.SWAPPED
            case Reject(ticket, refusal) if ticket == newcomer:
                # Whether the queue is full has nothing to do with engines.
                refused = {Refusal.TOO_LARGE, Refusal.BACK_OFF, Refusal.QUEUE_FULL}
                assert refusal in refused
                assert (refusal is Refusal.TOO_LARGE) == (foreseen.variant is None)
                assert refusal is not Refusal.BACK_OFF or foreseen.pause is not None

    def count_comes(self, choice: int, percent: int | None) -> None:
        """The need is so far from the least to what it was taken for; None: nobody could say."""
        if not self.counting:
            return
        number = self.counting.pop(choice % len(self.counting))
        asked = self.waiting.get(number)
        holder = next((e for e in self.live.values() if number in e.leases), None)
        if asked is None and holder is None:
            return  # it is over, and its count with it
        asked = asked or self.asked[number]
        need = None
        if percent is not None:
            least = asked.least_need or 0
            need = least + (asked.need - least) * percent // 100
            if number in self.waiting:
                self.waiting[number] = msgspec.structs.replace(asked, need=need)
            elif holder is not None:
                holder.leases[number] = need
        self.take_in(Recounted(number, need))

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
            if not engine.outdated:
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
            engine = self.live[number]
            key = engine.facts.key
            if not engine.outdated:
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

    def is_reconfigured(self, edit: Edit, model: str) -> None:
        before, changed = self.variants, set()
        if self.original is None:
            self.original = before
        after = dict(before)
        of_model = [facts for key, facts in before.items() if key.model == model]
        match edit:
            case Edit.REMOVE:
                after = {key: facts for key, facts in before.items() if key.model != model}
            case Edit.RESTORE:
                after = dict(self.original)
                changed = {key for key in after if before.get(key) != after[key]}
            case Edit.CHANGE:
                changed = {facts.key for facts in of_model}
            case Edit.MOVE:
                for facts in of_model:
                    pool = "q" if facts.pool == "p" else "p"
                    after[facts.key] = msgspec.structs.replace(facts, pool=pool)
            case Edit.RETIME:
                for facts in of_model:
                    after[facts.key] = msgspec.structs.replace(facts, idle_timeout_s=1.0)
            case Edit.SHRINK:
                self.pools = {name: PoolConfig(name, 1, 60) for name in self.pools}
            case Edit.DIVIDE:
                self.pools = {name: divided(name) for name in self.pools}
            case Edit.WATCH:
                self.pools = {
                    name: PoolConfig(name, 3, memory_auto=True, reserve=RESERVE)
                    for name in self.pools
                }
            case Edit.WIDEN:
                self.pools = {name: PoolConfig(name, 3) for name in self.pools}
        self._take_over(after, changed)

    def _take_over(self, after: dict[VariantKey, VariantFacts], changed: set[VariantKey]) -> None:
        gone = set(self.variants) - set(after)
        for engine in self.live.values():
            key = engine.facts.key
            if engine.outdated:
                continue
            if key in changed or key in gone:
                engine.outdated = engine.unloading = True
                engine.facts = msgspec.structs.replace(
                    engine.facts, memory_bytes=self._memory_of(engine.facts), memory_declared=True
                )
            else:
                engine.facts = after[key]
        for key in changed | gone:
            self.contexts.pop(key, None)
            self.measured.pop(key, None)
        self.variants, self.reloading = after, True
        self.take_in(
            Reconfigured(
                variants=tuple(sorted(after.values(), key=lambda f: (f.key.model, f.context))),
                pools=self.pools,
                changed=frozenset(changed),
                queue_limit=20,
                queue_timeout_s=3000.0,
                fairness_window_s=self.subject.window_s,
            )
        )
        self.reloading = False
        for engine in self.live.values():
            assert not engine.outdated or engine.draining or engine.stopping

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
        while self.memory.yields:
            self.yield_ends(0)
        self.time_passes(WAITED_OUT_S)
        for name in [*self.pools]:
            self.memory_is_seen(name, 0)
        starts_allowed = self.starts + 2 * len(self.waiting) + len(self.live)
        while (
            any(e.loading or e.stopping for e in self.live.values())
            or self.leases
            or self.counting
            or self.looks
        ):
            moves: list[Callable[[int], None]] = []
            if self.leases:
                moves.append(self.lease_ends)
            if self.looks:
                moves.append(lambda choice: self.look_comes(choice, 0))
            if self.counting:
                moves.append(
                    lambda choice: self.count_comes(choice, (None, 0, 50, 100)[choice % 4])
                )
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
