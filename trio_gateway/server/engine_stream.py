"""EngineStream: an engine's answer on its way to the client, and what if it breaks off."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack

import trio
from quart.wrappers.response import ResponseBody

from trio_gateway.engine.http_exchange import (
    ENGINE_LOST,
    EngineTalksGarbage,
    Exchange,
    ExchangeAborted,
    OutOfSockets,
)
from trio_gateway.engine.lease import Lease
from trio_gateway.engine.usage import Usage, usage_of_stream
from trio_gateway.server import sse
from trio_gateway.server.asgi import TornStream
from trio_gateway.server.errors import engine_failed, shutting_down

log = logging.getLogger(__name__)

# An engine's end is noticed within milliseconds of its connections breaking; this bounds the
# wait for the news, which tells a request why it lost its engine.
ENGINE_NEWS_S = 1.0


class EngineStream(ResponseBody):
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
        add_to_dump: Callable[[bytes], None] | None,
        note_usage: Callable[[Usage | None], None],
    ) -> None:
        self._next: bytes | None = first
        self._last_sent = b""
        # Its last event but the `[DONE]` is in the last pieces, cut in two at the most.
        self._tail: deque[bytes] = deque(maxlen=4)
        self._note_usage = note_usage
        self._exchange, self._lease, self._resources = exchange, lease, resources
        self._add_to_dump = add_to_dump
        self._over = False
        content_type = dict(exchange.headers).get(b"content-type", b"").decode("latin-1")
        self.has_events = sse.is_event_stream(content_type)

    async def __aenter__(self) -> EngineStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    def __aiter__(self) -> EngineStream:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        piece = self._next
        if piece is None:
            try:
                piece = await self._exchange.receive()
            except (*ENGINE_LOST, ExchangeAborted) as error:
                return await self._break_off(error)
            if self._add_to_dump is not None:
                self._add_to_dump(piece)
        self._next = None
        if not piece:
            if self.has_events:
                self._note_usage(usage_of_stream(b"".join(self._tail)))
            await self._resources.aclose()  # the engine is free before the client has read all
            raise StopAsyncIteration
        self._last_sent = piece
        self._tail.append(piece)
        return piece

    async def _break_off(self, error: Exception) -> bytes:
        self._over = True
        aborted = isinstance(error, ExchangeAborted)
        reason = str(error) if aborted else await news_of(self._lease, error)
        await self._resources.aclose()
        model = self._lease.engine.key.model
        log.error("a stream of %s broke off: %s", model, reason)
        if not self.has_events:
            raise TornStream(reason)
        failure = shutting_down() if aborted else engine_failed(model, reason)
        event = sse.error_event(failure.body(), last_sent=self._last_sent)
        if self._add_to_dump is not None:
            self._add_to_dump(event)
        return event


async def news_of(lease: Lease, error: Exception) -> str:
    """Why the engine was lost: how it ended, if it did, else what was seen of it."""
    if isinstance(error, OutOfSockets) or lease.engine.pid is None:
        return str(error)  # nothing happened to the engine, or nothing here that would tell of it
    garbage = isinstance(error, EngineTalksGarbage)
    # One that talks is not about to end, unless it is given up for talking like that.
    if not garbage or lease.client.refuses.is_set():
        with trio.move_on_after(ENGINE_NEWS_S):
            await lease.engine.gone.wait()
            return lease.engine.epitaph
    return str(error) + (lease.engine.last_words if garbage else "")
