"""WaitingStream: the answer to a streamed request that has to wait, with comments that say why.

Tunnels and clients give up after a minute or so of silence, and a load takes that long. So a
streamed request that waits longer than `stream_keepalive` gets its 200 at once, and server-sent
comments, which clients skip, until its answer comes. An error after that is an error event.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio

from trio_gateway.engine.lease import LeaseRequest
from trio_gateway.engine.scheduling.outlook import Outlook
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoints import Family
from trio_gateway.server.api.errors import ApiError, bug, engine_error
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.http.scopes import TornStream
from trio_gateway.server.relay.answer import Answer, AnswerStream
from trio_gateway.server.relay.headers import DECISION_PREFIX

log = logging.getLogger(__name__)


class Wait:
    """What a request waits for, for comments: its ticket, then the engine's first byte."""

    def __init__(self) -> None:
        self.request: LeaseRequest | None = None
        self.engine_asked_at: float | None = None

    def comment(self) -> str:
        outlook = self.request.outlook() if self.request is not None else None
        if outlook is not None:
            return _describe(outlook)
        waited_s = trio.current_time() - (self.engine_asked_at or trio.current_time())
        return f"waiting for the first token, {waited_s:.0f}s"


def _describe(outlook: Outlook) -> str:
    if outlook.loading_s is not None and outlook.load_s is not None:
        return f"loading {outlook.loading_s:.0f}s of ~{math.ceil(outlook.load_s)}s"
    return f"queued position={outlook.position} eta={math.ceil(outlook.wait_s)}s"


class PendingAnswer:
    """An answer that a task of the request's own nursery works on. `done` is set once there is one,
    or an error in its place."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def succeed(self, answer: Answer) -> None:
        self._answer = answer
        self.done.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.done.set()

    def result(self) -> Answer | None:
        """None while it is not done. Raises what it failed with."""
        if self._error is not None:
            raise self._error
        return self._answer


class WaitingStream(AnswerStream):
    """The body of a 200 that was sent before there was an answer."""

    has_events = True

    def __init__(
        self,
        pending: PendingAnswer,
        wait: Wait,
        keepalive_s: float,
        observers: Sequence[AnswerObserver],
        family: Family,
    ) -> None:
        self._family = family
        self._pending, self._wait, self._keepalive_s = pending, wait, keepalive_s
        self._observers = observers
        self._stream: AnswerStream | None = None
        self._next: bytes | None = _comment(wait.comment())
        self._over = False

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def __anext__(self) -> bytes:
        if self._stream is not None:
            return await self._stream.__anext__()
        if self._over:
            raise StopAsyncIteration
        if self._next is not None:
            piece, self._next = self._next, None
            return piece
        try:
            with trio.move_on_after(self._keepalive_s):
                await self._pending.done.wait()
            if (answer := self._pending.result()) is None:
                return _comment(self._wait.comment())
            return await self._begin(answer)
        except ApiError as error:
            return self._fail(error)
        except TornStream as torn:
            return self._fail(ApiError(502, str(torn), "engine_error", code="engine_failed"))
        except Exception as error:
            log.error("a bug in the gateway; please report it", exc_info=error)
            return self._fail(bug(error))

    async def _begin(self, answer: Answer) -> bytes:
        """What is known only now goes into a comment: the headers are sent."""
        known = [(n, v) for n, v in answer.headers if n.startswith(DECISION_PREFIX)]
        told = (f"{n.decode().title()}: {v.decode('latin-1')}" for n, v in known)
        facts = _comment("; ".join(told))
        if isinstance(answer.body, AnswerStream):
            self._stream = stream = answer.body
            if answer.status == 200 and stream.has_events:
                return facts
            body = b"".join([piece async for piece in stream])
        else:
            body = answer.body
        self._over = True
        if answer.status != 200:
            body = engine_error(answer.status, body, self._family)
        return facts + sse.answer_as_event(answer.status, body)

    def _fail(self, error: ApiError) -> bytes:
        self._over = True
        event = sse.error_event(error.body(self._family), last_sent=b"")
        for observer in self._observers:
            observer.continues(event)
        return event


def _comment(text: str) -> bytes:
    return f": {text}\n\n".encode()
