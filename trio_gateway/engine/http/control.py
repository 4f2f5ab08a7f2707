"""ControlClient: the gateway's own questions to an engine: health, limits, slots, counts.

httpx asks them, each over a connection of its own: an idle kept connection occupies one of
llama.cpp's few threads, and there is no pool in which a question could wait or leak a place. The
connections are opened as those of requests are, so names, TLS and errors are the same for both.

Requests and streams do not come this way: see exchange.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import httpcore
import httpx
import msgspec
import trio

from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineLost,
    EngineSilent,
    EngineTalksGarbage,
)
from trio_gateway.engine.http.connections import Connections
from trio_gateway.engine.http.exchange import Header, Pulse
from trio_gateway.engine.http.opener import Opener, Stream, socket_of
from trio_gateway.rawjson import decode_or_none

log = logging.getLogger(__name__)

ANSWER_MAX_BYTES = 16 * 1024**2
_TARGET = "target"  # httpcore's name of the extension
_HEADERS: list[Header] = [
    (b"Content-Type", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
]


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes

    @property
    def value(self) -> Any:
        """The decoded body of a 200; None for any other status, and if it is not JSON."""
        return decode_or_none(self.body) if self.status == 200 else None


class ControlClient:
    """Close it with `aclose`. `headers` go with each question."""

    def __init__(
        self, opener: Opener, connections: Connections, headers: Sequence[Header] = ()
    ) -> None:
        self.name = opener.authority.decode()
        self._asked: dict[tuple[str, str], httpx.Request] = {}
        self._http = httpx.AsyncClient(
            base_url=f"http://{self.name}",  # TLS is the opener's affair
            headers=[*_HEADERS, *headers],
            transport=_Transport(opener, connections),
            trust_env=False,  # HTTP_PROXY must not see loopback traffic
            timeout=None,  # each question has a deadline for all of it
        )

    async def request(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer:
        """Raises EngineLost."""
        if self._http.is_closed:
            raise EngineDisconnected("the engine went away between two questions")
        try:
            with trio.fail_after(timeout_s):
                answer = await self._http.send(self._question(method, target, body))
        except trio.TooSlowError:
            raise EngineSilent(f"no answer within {timeout_s:g} s") from None
        return Answer(answer.status_code, answer.content)

    def _question(self, method: str, target: str, body: bytes) -> httpx.Request:
        """Those without a body are asked again and again, and made once: that is a tenth of what a
        health check costs."""
        question = self._asked.get((method, target)) if not body else None
        if question is None:
            # Not as the URL, which httpx would normalise: an engine is asked for the path as given.
            as_given = {_TARGET: target.encode("latin-1")}
            question = self._http.build_request(method, "/", content=body, extensions=as_given)
            if not body:
                self._asked[method, target] = question
        return question

    async def ask(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer | None:
        """As `request`; None without an answer, which is logged."""
        try:
            return await self.request(method, target, timeout_s, body)
        except EngineLost as error:
            log.debug("%s %s%s: %r", method, self.name, target, error)
            return None

    async def aclose(self) -> None:
        await self._http.aclose()


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, opener: Opener, connections: Connections) -> None:
        self._opener, self._connections = opener, connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(scheme=b"http", host=b"engine", target=request.extensions[_TARGET])
        asked = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        network = _Network(await self._opener.connect(), self._connections.pulse)
        with self._connections.held(network):
            try:
                http = httpcore.AsyncHTTP11Connection(origin=url.origin, stream=network)
                answer = await http.handle_async_request(asked)
                body = await answer.aread()
            except httpcore.ProtocolError as error:
                if network.is_silent:
                    raise EngineDisconnected("the engine closed the connection") from error
                reason = f"the engine's answer is not HTTP: {error}"
                raise EngineTalksGarbage(reason) from error
        return httpx.Response(answer.status, content=body)


class _Network(httpcore.AsyncNetworkStream):
    """An open connection, as httpcore wants it. It has no timeouts of its own."""

    def __init__(self, stream: Stream, pulse: Pulse) -> None:
        self._stream, self._pulse = stream, pulse
        self._abort_error: Exception | None = None
        self._size = 0
        self.is_silent = True  # nothing came so far

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._abort_error is not None:
                raise self._abort_error from None
            raise EngineDisconnected("the connection to the engine broke") from error
        if data:
            self._pulse.beats += 1
            self.is_silent = False
        self._size += len(data)
        if self._size > ANSWER_MAX_BYTES:
            raise EngineTalksGarbage(f"the engine's answer is over {ANSWER_MAX_BYTES} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._abort_error is not None:
                raise self._abort_error from None
            # An engine that stops reading may have answered before.
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        socket_of(self._stream).close()

    def abort(self, error: Exception) -> None:
        self._abort_error = error
        self.close()
