"""EngineClient: what the gateway asks of any engine, over HTTP."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.facts import EngineFacts, Health, SlotFile, SlotRefused, SlotState
from trio_gateway.engine.errors import EngineDisconnected, EngineLost, ExchangeAborted, OutOfSockets
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header, Pulse, Stream, open_exchange
from trio_gateway.engine.http.socket import EngineSocket, SocketPlace, connect

NO_OPTIONS = EngineOptions()
REFUSALS_MAX = 2  # requests; the second try of one counts no more, as the request may be to blame


class EngineClient(abc.ABC):
    """Speaks to one engine at `base_url` (`http://host:port`). Close it with `aclose`.

    `options` are the keys of the configuration that only some types have.

    `pulse` beats with whatever is read from the engine. `refuses` is set once it took
    REFUSALS_MAX requests in a row without an answer to any, `last_refusal` says how.

    `served_name`: what the engine calls its model; None: what the client calls it will do.
    """

    served_name: str | None = None

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self.base_url, self.options = base_url, options
        self.host, self.port = parts.hostname, parts.port or 80
        self.pulse = Pulse()
        self.refuses = trio.Event()
        self.last_refusal = ""
        self._refusals = 0
        self._refused_last: object = None  # the body of it, or what stands for one
        self._open: set[Exchange | EngineSocket] = set()
        self._over: EngineDisconnected | ExchangeAborted | None = None

    @abc.abstractmethod
    async def check_health(self, timeout_s: float) -> Health:
        """One health request; never raises."""

    @abc.abstractmethod
    async def read_facts(self, timeout_s: float) -> EngineFacts:
        """Places and context of a ready engine; never raises."""

    @abc.abstractmethod
    async def estimate_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        """The exact number of prompt tokens of a request, as the engine counts them; None: it
        cannot say. Of several prompts in one request, the largest: each is a sequence by itself."""

    # -- slots, for engines that can save and restore their KV cache ------------------------------

    async def read_slots(self, timeout_s: float) -> list[SlotState] | None:
        """The engine's slots; None: it does not say."""
        return None

    async def save_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        """Raises SlotRefused, SlotUnanswered."""
        raise SlotRefused("this type of engine cannot save slots")

    async def restore_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        """Raises SlotRefused, SlotUnanswered."""
        raise SlotRefused("this type of engine cannot restore slots")

    async def erase_slot(self, slot: int, timeout_s: float) -> None:
        """Forget a slot's conversation; never raises."""
        return  # nothing to forget

    async def tokenize_request(
        self, endpoint: str, body: bytes, timeout_s: float
    ) -> list[int] | None:
        """The ids of a request's prompt, as the engine reads it; None: it cannot say."""
        return None

    def transform_request(self, endpoint: str, body: bytes) -> bytes:
        """The body as the engine wants it. The client's own bytes, unless a type needs more."""
        return body

    def transform_response(self, headers: Sequence[Header]) -> list[Header]:
        """The engine's headers as the client gets them."""
        return [
            (name, value)
            for name, value in headers
            if name not in _NOT_PASSED_ON and not name.startswith(_OUR_OWN)
        ]

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AsyncIterator[Exchange]:
        """Send a request; the block has the answer's status, headers and byte stream.

        Leaving the block, by cancellation too, closes the connection at once.

        Raises:
            EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted, and what a
            BodySource raises. After one of the first three, `can_repeat` says whether that body
            can be sent once more (`rewind` it).
        """
        opened: list[Exchange] = []
        try:
            try:
                exchange = await self._begin(opened, method, target, headers, body)
            except EngineLost as error:
                self._note_refusal(error, body)
                raise
            self._note_answer()
            yield exchange
        finally:
            self._end(opened)

    @asynccontextmanager
    async def open_socket(
        self,
        target: str,
        subprotocols: Sequence[str],
        headers: Sequence[Header],
        max_message_bytes: int,
    ) -> AsyncIterator[EngineSocket]:
        """A WebSocket, open. Leaving the block closes its connection.

        Raises:
            HandshakeRefused, EngineUnreachable, EngineDisconnected, EngineTalksGarbage,
            ExchangeAborted
        """
        stream, place = await self._connect_socket(target, headers)
        socket = EngineSocket(stream, max_message_bytes)
        socket.pulse = self.pulse
        self._open.add(socket)
        try:
            if self._over is not None:
                socket.abort(self._over)
            await socket.open(place, subprotocols)
            self._note_answer()
            yield socket
        finally:
            socket.close_at_once()
            self._open.discard(socket)

    async def _connect_socket(
        self, target: str, headers: Sequence[Header]
    ) -> tuple[Stream, SocketPlace]:
        """A connection for a WebSocket. Raises EngineUnreachable."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        stream = await connect(self.host, self.port)
        return stream, SocketPlace(f"{name}:{self.port}", target, [*headers])

    async def ask_status(self, target: str) -> int:
        """The status of a GET. Not counted in `refuses`: an engine may answer such questions and
        still take no work. Raises as `forward_request` does."""
        opened: list[Exchange] = []
        try:
            return (await self._begin(opened, "GET", target, (), b"")).status
        finally:
            self._end(opened)

    async def _begin(
        self,
        opened: list[Exchange],
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> Exchange:
        keep = partial(self._keep, opened)
        return await open_exchange(
            self.host, self.port, method, target, headers, body, on_open=keep
        )

    def _keep(self, opened: list[Exchange], exchange: Exchange) -> None:
        """Of an exchange that was opened a moment ago: `_end` closes it, `abort_all` reaches it."""
        opened.append(exchange)
        exchange.pulse = self.pulse
        self._open.add(exchange)
        if self._over is not None:
            exchange.abort(self._over)

    def _end(self, opened: list[Exchange]) -> None:
        for exchange in opened:
            exchange.close()
            self._open.discard(exchange)

    def _note_answer(self) -> None:
        self._refused_last = None
        self._refusals = 0

    def _note_refusal(self, error: Exception, body: bytes | BodySource) -> None:
        # What the gateway ended or could not even begin was not refused, and an engine that is
        # in the middle of an answer to somebody else does not refuse everything.
        answering = any(exchange.status for exchange in self._open)
        request: object = body
        if isinstance(body, BodySource):
            request = body.request
            if body.is_begun and not body.is_complete:
                return  # an upload that it closed the door on may be larger than it takes
        again = request is self._refused_last
        if self._over is None and not isinstance(error, OutOfSockets) and not (answering or again):
            self._refused_last = request
            self._refusals += 1
            self.last_refusal = str(error)
            if self._refusals >= REFUSALS_MAX:
                self.refuses.set()

    def abort_all(self, error: EngineDisconnected | ExchangeAborted) -> None:
        """End every request that is under way, and any that comes later; each gets this error."""
        self._over = error
        for exchange in [*self._open]:
            exchange.abort(error)

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release what the client holds."""


# Hop-by-hop headers, and those that speak of the engine's server rather than of the answer. An
# engine's CORS headers would let any web page read what the gateway answers, and others speak for
# all of the gateway's origin.
_NOT_PASSED_ON = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"server",
        b"date",
        b"set-cookie",
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"access-control-allow-private-network",
        b"clear-site-data",
        b"service-worker-allowed",
    }
)
_OUR_OWN = b"x-gateway-"  # of another gateway, they would contradict ours
