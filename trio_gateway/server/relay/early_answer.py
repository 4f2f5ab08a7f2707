"""EarlyAnswers: a streamed request that waits for long is told why, before it has an answer.

Tunnels and clients give up after a minute or so of silence, and a load takes that long. So a
streamed request that waits longer than `stream_keepalive` gets its 200 at once, and server-sent
comments, which clients skip, until its answer comes. An error after that is an error event.

Nearly all streams are answered at once, so a request has no task and no timer for this. They all
have the same patience, and stand in one line by when it ends: one task sleeps until the first is
due. Only then the request gets a task. It sends the start and the comments, and is over before the
request's own task goes on with the answer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from trio_gateway.models.selection import Selection
from trio_gateway.server.api import sse
from trio_gateway.server.api.errors import ApiError, ErrorEvents, bug
from trio_gateway.server.api.keepalive import WaitingEvents, comment
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.http.scopes import RequestState, TornStream
from trio_gateway.server.http.types import ClientGone, Send
from trio_gateway.server.relay.answer import Answer, AnswerStream, collected
from trio_gateway.server.relay.headers import DECISION_PREFIX, selection_headers
from trio_gateway.server.relay.wait import Wait

log = logging.getLogger(__name__)

ABANDON_S = 1.0  # for a send that is cancelled
# Who looks at a page wants to know soon, and no more often than somebody reads.
THOUGHT_AFTER_S, THOUGHT_S = 1.0, 5.0


class Opening(NamedTuple):
    """How an answer begins before there is one: `encode` makes what its client gets for an event or
    a comment. `events`: what its client gets in place of comments; `is_thought`: as thoughts."""

    content_type: bytes
    encode: Callable[[bytes], bytes]
    events: WaitingEvents | None = None
    is_thought: bool = False

    def said(self, sentence: str) -> bytes:
        """What it waits for, as its client gets it."""
        events = self.events
        return self.encode(comment(sentence) if events is None else events.next(sentence))


EVENTS = Opening(sse.CONTENT_TYPE.encode(), bytes)


class EarlyAnswers:
    """The streamed requests that wait for their answer; `run` in a task.

    Args:
        keepalive_s: how long each waits in silence, and between comments; 0: however long it takes.
    """

    def __init__(self, keepalive_s: float) -> None:
        self._nursery: trio.Nursery | None = None
        self._open(keepalive_s)

    def _open(self, keepalive_s: float) -> None:
        self._keepalive_s, self._is_silent = keepalive_s, not keepalive_s
        keepalive_s = keepalive_s or math.inf
        self._others = _Line(keepalive_s, keepalive_s)
        self._thoughts = _Line(min(THOUGHT_AFTER_S, keepalive_s), min(THOUGHT_S, keepalive_s))

    def keep_alive_after(self, keepalive_s: float) -> None:
        """For those that come from now on."""
        if keepalive_s == self._keepalive_s:
            return
        for line in (self._others, self._thoughts):
            line.end()
        self._open(keepalive_s)
        if self._nursery is not None:
            self._nursery.start_soon(self._others.run)
            self._nursery.start_soon(self._thoughts.run)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._others.run)
            await nursery.start(self._thoughts.run)
            task_status.started()
            await trio.sleep_forever()

    def takes(self, opening: Opening) -> bool:
        """Whether one that begins like this is told anything."""
        return opening.is_thought or not self._is_silent

    def begin(
        self,
        wait: Wait,
        opening: Opening,
        selection: Selection,
        send: Send,
        observers: Sequence[AnswerObserver],
    ) -> EarlyAnswer:
        """A request waits from now on: `end` or `abandon` it."""
        line = self._thoughts if opening.is_thought else self._others
        return line.begin(_Telling(wait, opening, selection, send, observers, line.every_s))


class _Line:
    """Those that wait in silence for as long, `silent_s`. `every_s`: between what each is told."""

    def __init__(self, silent_s: float, every_s: float) -> None:
        self._silent_s, self.every_s = silent_s, every_s
        self._line: dict[EarlyAnswer, None] = {}  # in the order in which they are due
        self._news = trio.Event()
        self._ends = False

    def end(self) -> None:
        """Nobody more comes; `run` ends with the last."""
        self._ends = True
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                if not self._line:
                    if self._ends:
                        return
                    self._news = trio.Event()
                    await self._news.wait()
                # Whoever comes while this sleeps is due later.
                if (first := next(iter(self._line), None)) is None:
                    continue
                await trio.sleep_until(first.due)
                while first is not None and first.due <= trio.current_time():
                    if self._line.pop(first, first) is None:
                        first.start(nursery)
                    first = next(iter(self._line), None)

    def _due(self) -> float:
        return trio.current_time() + self._silent_s

    def begin(self, telling: _Telling) -> EarlyAnswer:
        early = EarlyAnswer(self._due(), telling, self._line)
        self._line[early] = None
        self._news.set()
        return early


class EarlyAnswer:
    """What may be sent of one answer before it is there."""

    def __init__(self, due: float, telling: _Telling, line: dict[EarlyAnswer, None]) -> None:
        self.due, self._telling, self._line = due, telling, line

    def start(self, nursery: trio.Nursery) -> None:
        """It is due, and out of the line."""
        self._telling.begin()
        nursery.start_soon(self._telling.run)

    async def end(self) -> bool:
        """There is an answer: no more comments. Whether its start has been sent.

        Raises:
            ClientGone, TornStream: sending them failed.
        """
        if self._line.pop(self, self) is None:
            return False  # without a checkpoint: it is how nearly all of them end
        try:
            await self._telling.end()
        except BaseException:
            await self.abandon()
            raise
        return True

    async def abandon(self) -> None:
        """The request is over without an answer: after this nothing of it is sent."""
        if self._line.pop(self, self) is not None:
            await self._telling.abandon()


class _Telling:
    """The task of one request that sends its start and comments. Two tasks send for it, but never
    at the same time: the request's own one waits for the end of this one."""

    _scope: trio.CancelScope
    _enough: trio.Event
    _over: trio.Event

    def __init__(
        self,
        wait: Wait,
        opening: Opening,
        selection: Selection,
        send: Send,
        observers: Sequence[AnswerObserver],
        every_s: float,
    ) -> None:
        self._wait, self._opening, self._selection = wait, opening, selection
        self._send, self._observers, self._every_s = send, observers, every_s
        self._error: Exception | None = None

    def begin(self) -> None:
        self._scope, self._enough, self._over = trio.CancelScope(), trio.Event(), trio.Event()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._tell()
        except Exception as error:  # noqa: BLE001 - the request's own task is told
            self._error = error
        finally:
            self._over.set()

    async def _tell(self) -> None:
        headers = [
            (b"content-type", self._opening.content_type),
            (b"cache-control", b"no-cache"),
            *selection_headers(self._selection),
        ]
        for observer in self._observers:
            observer.begins(200, headers)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while not self._enough.is_set():
            said = self._opening.said(self._wait.sentence())
            await self._send({"type": "http.response.body", "body": said, "more_body": True})
            with trio.move_on_after(self._every_s):
                await self._enough.wait()

    async def end(self) -> None:
        """Let it come to its end. Raises ClientGone, TornStream."""
        self._enough.set()
        await self._over.wait()
        if isinstance(self._error, ClientGone):
            raise self._error
        if self._error is not None:
            raise TornStream(f"the client could not be told: {self._error!r}") from self._error

    async def abandon(self) -> None:
        self._scope.cancel(reason="the request is over")
        # Shielded: the app must not return while something of it still sends.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + ABANDON_S):
            await self._over.wait()


class LateAnswer(AnswerStream):
    """What is left of an answer whose start was sent before it was there."""

    has_events = True
    is_begun = True

    def __init__(
        self,
        answer: Answer | Exception,
        errors: ErrorEvents,
        state: RequestState,
        *,
        events: WaitingEvents | None = None,
    ) -> None:
        self._events = events
        self._answer: Answer | Exception | None = answer
        self._errors, self._observers, self._hold = errors, state.observers, state.hold
        self._record = state.record
        self._stream: AnswerStream | None = None

    def last_words(self, error: ApiError) -> bytes:
        words = b"" if self._stream is None else self._stream.last_words(error)
        closing = b"" if self._events is None else self._events.close()
        return closing + (words or sse.error_event(self._errors.of(error), last_sent=b""))

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def __anext__(self) -> bytes:
        if (answer := self._answer) is not None:
            self._answer = None
            closing = b"" if self._events is None else self._events.close()
            if beginning := closing + await self._beginning(answer):
                return beginning
        while self._stream is not None and not self.is_over:
            try:
                piece = await self._stream.__anext__()
                self.is_over = self._stream.is_over
            except StopAsyncIteration:
                piece, self.is_over = b"", True
            if self._events is not None:
                piece = self._events.continues(piece, is_last=self.is_over)
            if piece:
                return piece
        raise StopAsyncIteration

    async def _beginning(self, answer: Answer | Exception) -> bytes:
        try:
            if isinstance(answer, Exception):
                raise answer
            return await self._begin(answer)
        except ApiError as error:
            return self._fail(error)
        except TornStream as torn:
            return self._fail(ApiError(502, str(torn), "engine_error", code="engine_failed"))
        except Exception as error:
            log.error("a bug in the gateway; please report it", exc_info=error)
            return self._fail(bug(error))

    async def _begin(self, answer: Answer) -> bytes:
        """What is known only now goes into a comment: the headers are sent. Perhaps nothing."""
        known = [(n, v) for n, v in answer.headers if n.startswith(DECISION_PREFIX)]
        told = (f"{n.decode().title()}: {v.decode('latin-1')}" for n, v in known)
        has_comments = self._events is None or self._events.has_comments
        facts = comment("; ".join(told)) if has_comments else b""
        body = answer.body
        if isinstance(body, AnswerStream):
            self._stream = body
            if answer.status == 200 and body.has_events:
                return facts
            body = await collected(body, self._hold)
        self.is_over = True
        last = sse.answer_as_event(body) if answer.status == 200 else None
        if last is None:
            self._record.fails(f"http_{answer.status}")
            error = self._errors.of_engine(answer.status, body)
            last = sse.error_event(error, last_sent=b"")
        return facts + last

    def _fail(self, error: ApiError) -> bytes:
        self.is_over = True
        self._record.fails(error.code or error.error_type)
        event = sse.error_event(self._errors.of(error), last_sent=b"")
        for observer in self._observers:
            observer.continues(event)
        return event
