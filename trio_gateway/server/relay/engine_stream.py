"""EngineStream: an engine's answer on its way to the client, and what happens if it breaks off."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio

from trio_gateway.engine.errors import EngineLost, EngineTalksGarbage, ExchangeAborted, OutOfSockets
from trio_gateway.engine.http.exchange import Exchange
from trio_gateway.engine.lease import Lease
from trio_gateway.server.api import sse
from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.errors import ErrorEvents, aborted, engine_failed
from trio_gateway.server.api.observer import AnswerObserver
from trio_gateway.server.http.scopes import TornStream
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
        resources: AsyncExitStack,
        observers: Sequence[AnswerObserver],
        name: AnswerName,
        errors: ErrorEvents,
    ) -> None:
        self._first: bytes | None = first
        self._rename = name.in_piece if sse.has_events(exchange.headers) else None
        self._name, self._errors = name, errors
        self._last_sent = b""
        self._exchange, self._lease, self._resources = exchange, lease, resources
        self._observers = observers
        self.has_events = self._rename is not None

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
                    return await self._break_off(error)
                if piece:
                    for observer in self._observers:
                        observer.continues(piece)
            if self._rename is not None:
                piece = self._rename(piece)
            if exchange.complete:
                piece += await self._end()
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

    async def _break_off(self, error: Exception) -> bytes:
        self.is_over = True
        model = self._lease.engine.key.model
        if isinstance(error, ExchangeAborted):
            reason, failure = str(error), aborted(error)
        else:
            news = await news_of(self._lease, error)
            reason, failure = str(news), engine_failed(model, str(news), news.output)
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
    if isinstance(error, OutOfSockets) or engine.pid is None:
        return EngineLost(str(error))  # nothing happened to the engine, or nothing that shows here
    garbage = isinstance(error, EngineTalksGarbage)
    # One that answers is not about to end, unless it is given up for answering like that.
    if not garbage or lease.client.refuses.is_set():
        with trio.move_on_after(ENGINE_NEWS_S):
            await engine.gone.wait()
            return EngineLost(engine.epitaph, engine.last_output)
    return EngineLost(str(error), engine.output if garbage else ())
