"""Lease: a request's hold on a running engine, and LeaseRequest: how it comes by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.kv.slots import KvMove, Prompt
from trio_gateway.engine.scheduling.events import Grant, How, Reject, TicketArrived
from trio_gateway.engine.scheduling.outlook import Outlook

if TYPE_CHECKING:
    from trio_gateway.engine.manager import EngineManager


class LeaseRefused(Exception):
    """No engine for this request; `reject` says why and when to come again."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


class Lease:
    """How a request came by its engine, and the seconds that it waited.

    `load_s` is the part of the wait in which the engine was loading, `queue_s` the rest. `kv_move`:
    what was restored for it, and saved of what made way.
    """

    def __init__(
        self, engine: Engine, grant: Grant, arrived_at: float, prompt: Prompt | None, saved: int
    ) -> None:
        self.engine, self.grant, self._prompt = engine, grant, prompt
        restored = engine.kv.restored_tokens if engine.kv and grant.how is not How.REUSED else 0
        self.kv_move = KvMove(restored, saved)
        waited_s = trio.current_time() - arrived_at
        ready_at = engine.ready_at or arrived_at
        self.load_s = max(ready_at - max(arrived_at, engine.started_at), 0.0)
        self.queue_s = max(waited_s - self.load_s, 0.0)

    @property
    def client(self) -> EngineClient:
        return self.engine.client

    async def switch_conversation(self) -> None:
        """Let the conversation of the request come back into its slot; see `kv_conversations`."""
        if self.engine.kv is not None and self._prompt is not None:
            move = await self.engine.kv.switch(self.client, self._prompt, self.grant.ticket)
            before = self.kv_move
            self.kv_move = KvMove(before.restored + move.restored, before.saved + move.saved)

    def note_answer(self, usage: Usage) -> None:
        """What the answer said of its tokens and of its time."""
        if self.engine.kv is not None:
            self.engine.kv.note_answer(self.grant.ticket, usage)


class LeaseRequest:
    """An async context manager: entering waits for an engine, and the block holds it.

    Raises:
        LeaseRefused: on entering; the queue is full, the start failed, the gateway stops, …
    """

    def __init__(
        self, manager: EngineManager, event: TicketArrived, prompt: Prompt | None = None
    ) -> None:
        self._manager, self._event, self.prompt = manager, event, prompt
        self._decided = trio.Event()
        self._lease: Lease | None = None
        self._reject: Reject | None = None
        self._arrived_at = 0.0

    async def __aenter__(self) -> Lease:
        self._arrived_at = trio.current_time()
        self._manager.take_in(self, self._event)
        try:
            if not self._decided.is_set():
                await self._decided.wait()
            if self._reject is not None:
                raise LeaseRefused(self._reject)
        except BaseException:
            self._let_go()
            raise
        assert self._lease is not None
        return self._lease

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._manager.let_go(self._event.ticket, granted=self._lease is not None)

    @property
    def model(self) -> str:
        return self._event.model

    @property
    def is_waiting(self) -> bool:
        return not self._decided.is_set()

    def grant(self, grant: Grant, engine: Engine, saved_tokens: int) -> None:
        """Called by the manager. `saved_tokens`: of the engines that made way."""
        self._lease = Lease(engine, grant, self._arrived_at, self.prompt, saved_tokens)
        self._decided.set()

    def refuse(self, reject: Reject) -> None:
        """Called by the manager."""
        self._reject = reject
        self._decided.set()

    def outlook(self) -> Outlook | None:
        """What it may expect while it waits; None once it is decided."""
        return self._manager.outlook(self._event.ticket)
