"""EngineStream: an engine's answer on its way to the client, and what happens if it breaks off."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from trio_gateway.engine.errors import (
    AnswerEnded,
    EngineLost,
    EngineTalksGarbage,
    ExchangeAborted,
    OutOfSockets,
)
from trio_gateway.engine.http.exchange import Exchange
from trio_gateway.engine.lease import Lease
from trio_gateway.held import Held
from trio_gateway.server.api import sse
from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.answer_so_far import AnswerSoFar, ending_of, reason_of
from trio_gateway.server.api.errors import ApiError, ErrorEvents, aborted, engine_failed
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.http.scopes import TornStream
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.relay.answer import AnswerStream

log = logging.getLogger(__name__)

# An engine's end is noticed within milliseconds of its connections breaking; this bounds the
# wait for the news, which tells a request why it lost its engine.
ENGINE_NEWS_S = 1.0


class EngineStream(AnswerStream):
    """An engine's answer as it comes: what one read gave is one write.

    An answer that breaks off ends with an error event, or, where the format has no place for
    one, with a torn connection; never as if it were complete.
    """

    def __init__(
        self,
        first: bytes,
        exchange: Exchange,
        lease: Lease,
        resources: Held,
        observers: Sequence[AnswerObserver],
        name: AnswerName,
        errors: ErrorEvents,
        record: RequestRecord,
    ) -> None:
        self._record = record
        self._first: bytes | None = first
        self._rename = name.in_piece if sse.has_events(exchange.headers) else None
        self._name, self._errors = name, errors
        self._last_sent = b""
        self._exchange, self._lease, self._resources = exchange, lease, resources
        self._observers = observers
        self.has_events = self._rename is not None
        self._so_far: AnswerSoFar | None = None
        self._ends = False  # early, once an event is complete

    def may_end(self, so_far: AnswerSoFar) -> None:
        """Let it end when `longest_answer` is over and others wait, as if it had come to its
        maximum."""
        if not self.has_events:
            return
        so_far.continues(self._first or b"")
        self._so_far, self._observers = so_far, [*self._observers, so_far]
        self._lease.when_ended = self._end_soon
        if self._lease.ended_after_s is not None:
            self._end_soon()

    def _end_soon(self) -> None:
        """Called by the scheduler. What waits for the engine's next piece need not wait longer."""
        self._ends = True
        if self._first is None and self._is_between_events and not self._exchange.complete:
            self._exchange.abort(AnswerEnded("longest_answer"))

    @property
    def _is_between_events(self) -> bool:
        return self._so_far is not None and self._so_far.is_between_events

    def last_words(self, error: ApiError) -> bytes:
        # What was given last may not have been sent, so it may be in the middle of an event.
        if not self.has_events:
            return b""
        return sse.error_event(self._errors.of(error), last_sent=b"?")

    async def aclose(self) -> None:
        await self._resources.aclose()

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        while not self.is_over:
            if (piece := self._first) is not None:
                self._first = None
            else:
                try:
                    piece = await exchange.receive()
                except (EngineLost, ExchangeAborted) as error:
                    if isinstance(error, AnswerEnded) and self._is_between_events:
                        return await self._end_early()
                    return await self._break_off(error)
                if piece:
                    for observer in self._observers:
                        observer.continues(piece)
            if self._rename is not None:
                piece = self._rename(piece)
            if exchange.complete:
                piece += await self._end()
            elif self._ends and self._is_between_events:
                piece += await self._end_early()
            if piece:
                self._last_sent = piece
                return piece
        raise StopAsyncIteration

    async def _end(self) -> bytes:
        self.is_over = True
        for observer in self._observers:
            observer.completes()
        await self._resources.aclose()  # the engine is free before the client has read all
        return self._name.rest()

    async def _end_early(self) -> bytes:
        self.is_over = True
        assert self._so_far is not None
        ending = ending_of(self._so_far, self._lease.ended_after_s)
        if self._rename is not None:
            ending = self._rename(ending) + self._name.rest()
        for observer in self._observers:
            observer.continues(ending)
        await self._resources.aclose()
        log.info("%s: %s", self._lease.engine.key, reason_of(self._lease.ended_after_s))
        return ending

    async def _break_off(self, error: Exception) -> bytes:
        self.is_over = True
        model = self._lease.engine.key.model
        if isinstance(error, ExchangeAborted):
            reason, failure = str(error), aborted(error)
        else:
            news = await news_of(self._lease, error)
            reason, failure = str(news), engine_failed(model, str(news), news.output)
        self._record.fails(failure.code or failure.error_type)
        await self._resources.aclose()
        log.error("a stream of %s broke off: %s", model, reason)
        if not self.has_events:
            raise TornStream(reason)
        event = sse.error_event(self._errors.of(failure), last_sent=self._last_sent)
        for observer in self._observers:
            observer.continues(event)
        return event


async def news_of(lease: Lease, error: Exception) -> EngineLost:
    """Why the engine was lost: how it ended, if it did, otherwise what was seen of it."""
    engine = lease.engine
    is_elsewhere = engine.pid is None and not lease.client.is_given_up
    if isinstance(error, OutOfSockets) or is_elsewhere:
        return EngineLost(str(error))  # nothing happened to the engine, or nothing that shows here
    garbage = isinstance(error, EngineTalksGarbage)
    # One that answers is not about to end, unless it is given up for answering like that.
    if not garbage or lease.client.is_given_up:
        with trio.move_on_after(ENGINE_NEWS_S):
            await engine.gone.wait()
            return EngineLost(engine.epitaph, engine.last_output)
    return EngineLost(str(error), engine.output if garbage else ())
