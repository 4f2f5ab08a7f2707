"""From the ticket to the hold: LeaseRequest waits for an engine, Lease is what it then has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

import trio

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.kv.conversations import NO_MOVE, KvMove
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.scheduling.events import Grant, How, Reject, TicketArrived
from trio_gateway.engine.scheduling.progress import AnswerProgress
from trio_gateway.engine.scheduling.waiting import Waiting

SLOTS_LIMIT_S = 0.5  # the beginning of an answer waits for it


class Needs(NamedTuple):
    """Tokens: what a request needs, and what an engine should hold that is started for it."""

    need: int
    start_need: int


# Counts a request again, as exactly as its engine can; None: nobody knows better.
Recount = Callable[[], Awaitable[Needs | None]]


class LeaseRefused(Exception):
    """No engine for this request; `reject` says why, and when to try again."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


class Lease:
    """How a request came by its engine, and the seconds that it waited.

    `granted_at`: when it got it. `load_s` is the part of the wait in which the engine was loading,
    `queue_s` the rest. `kv_move`: what was restored for it, and saved of what made way. `spared`:
    tokens of its prompt that its engine then found in its cache; None if it did not say, or nothing
    was restored. `progress`: how far its answer is, if that can be told. `ended_after_s`: its
    answer has to end, after so long, because others wait; `when_ended` is called then.
    """

    kv_move = NO_MOVE
    spared: int | None = None
    ended_after_s: float | None = None
    when_ended: Callable[[], None] | None = None

    def __init__(
        self, engine: Engine, grant: Grant, request: LeaseRequest, saved: int, now: float
    ) -> None:
        self.engine, self.grant, self._prompt = engine, grant, request.prompt
        self.progress: AnswerProgress | None = request.event.progress
        if grant.how is not How.REUSED:
            self._note_move(saved)
        arrived_at, ready_at = request.arrived_at, engine.ready_at
        self.granted_at = now
        self.load_s, self.queue_s = 0.0, now - arrived_at
        if ready_at is not None and ready_at > arrived_at:
            self.load_s = ready_at - max(arrived_at, engine.started_at)
            self.queue_s = max(self.queue_s - self.load_s, 0.0)

    def _note_move(self, saved: int) -> None:
        """What was restored and saved for the start of its engine."""
        engine, owner = self.engine, "" if self._prompt is None else self._prompt.owner
        restored = 0 if engine.kv is None else engine.kv.restored_for(owner)
        if engine.owners is not None:
            saved = 0  # of whose conversations is not for everybody
        self.kv_move = KvMove(restored, saved)

    @property
    def client(self) -> EngineClient:
        return self.engine.client

    def end_answer(self, after_s: float) -> None:
        self.ended_after_s = after_s
        if self.when_ended is not None:
            self.when_ended()

    async def switch_conversation(self) -> None:
        """Let the request's conversation come back into its slot; see `kv/conversations.py`."""
        kv = self.engine.kv
        if kv is not None and kv.takes_turns and self._prompt is not None:
            move = await kv.switch(self.client, self._prompt, self.grant.ticket)
            self.kv_move = self.kv_move.and_then(move)

    async def find_spared(self, usage: Usage | None) -> None:
        """How many tokens a restore spared its request, once its answer has begun: as the answer
        says, or, of a stream, the one slot that works. Never raises."""
        if not self.kv_move.restored:
            return
        spared = usage.cached_tokens if usage is not None else None
        if spared is None:
            slots = await self.client.read_slots(SLOTS_LIMIT_S) or ()
            at_work = [slot.cached for slot in slots if slot.cached is not None]
            spared = at_work[0] if len(at_work) == 1 else None
        self.spared = spared

    def note_answer(self, usage: Usage) -> None:
        """What the answer said about its tokens and its time."""
        engine, progress = self.engine, self.progress
        engine.speeds.note(usage, None if progress is None else progress.begun_at)
        if engine.kv is not None:
            engine.kv.note_answer(self.grant.ticket, usage)


class Leases(Protocol):
    """Who gives leases; see EngineManager."""

    def take_in(self, request: LeaseRequest, /) -> None:
        """It arrives, and waits from now on: `grant` or `refuse` is called, now or later."""

    def let_go(self, request: LeaseRequest, /) -> None:
        """It is over, however it ended."""

    def waiting(self, ticket: int, /) -> Waiting | None:
        """What a ticket waits for, and may expect; None if it does not wait."""


class LeaseRequest:
    """An async context manager: entering waits for an engine, and the block holds it.

    Args:
        event: what the scheduler is told of it.
        prompt: the request itself, so that its conversation's KV cache can be found.
        recount: for one with a `least_need`.

    `arrived_at`: since when it waits. `lease`: what it was granted; None: it waits, or in vain.

    Raises:
        LeaseRefused: on entering; the queue is full, the start failed, the gateway stops, …
        Exception: on entering; what `recount` raised.
    """

    arrived_at = 0.0
    lease: Lease | None = None
    _counting: trio.CancelScope | None = None
    _decided: trio.Event | None = None  # most are granted at once, and wait for nothing
    _reject: Reject | None = None
    _error: Exception | None = None

    def __init__(
        self,
        event: TicketArrived,
        prompt: Prompt | None,
        leases: Leases,
        recount: Recount | None = None,
    ) -> None:
        self.event, self.prompt, self._leases = event, prompt, leases
        self._recount = recount

    async def __aenter__(self) -> Lease:
        self._leases.take_in(self)
        lease = self.lease
        return await self._wait() if lease is None else lease

    async def _wait(self) -> Lease:
        try:
            if self.is_waiting:
                self._decided = trio.Event()
                await self._decided.wait()
            if self._error is not None:
                raise self._error
            if self._reject is not None:
                raise LeaseRefused(self._reject)
        except BaseException:
            await self.__aexit__()
            raise
        assert self.lease is not None
        return self.lease

    async def __aexit__(self, *_: object) -> None:
        if self._counting is not None:
            self._counting.cancel(reason="the request is over")
        self._leases.let_go(self)

    def begin_count(self) -> trio.CancelScope:
        """For the task in which `count_again` runs: it is cancelled when the request is over."""
        self._counting = trio.CancelScope()
        return self._counting

    async def count_again(self) -> Needs | None:
        assert self._recount is not None, "it has a least need"
        return await self._recount()

    @property
    def is_waiting(self) -> bool:
        return self.lease is None and self._reject is None and self._error is None

    def grant(self, grant: Grant, engine: Engine, saved_tokens: int, now: float) -> None:
        """`saved_tokens`: of the engines that made way for it."""
        self.lease = Lease(engine, grant, self, saved_tokens, now)
        if self._decided is not None:
            self._decided.set()

    def end_answer(self, after_s: float) -> None:
        """Its answer has taken so long that it is the others' turn."""
        assert self.lease is not None
        self.lease.end_answer(after_s)

    def refuse(self, reject: Reject) -> None:
        self._reject = reject
        if self._decided is not None:
            self._decided.set()

    def fail(self, error: Exception) -> None:
        """It waits no longer: it is raised where it waits."""
        self._error = error
        if self._decided is not None:
            self._decided.set()

    def waiting(self) -> Waiting | None:
        """What it waits for, and may expect; None once it is decided."""
        return self._leases.waiting(self.event.ticket)


def waiting_prompts(requests: Mapping[int, LeaseRequest], model: str) -> dict[int, Prompt]:
    """Those of the model's requests that wait, by ticket."""
    waiting = [r for r in requests.values() if r.event.model == model and r.is_waiting]
    return {r.event.ticket: r.prompt for r in waiting if r.prompt is not None}
