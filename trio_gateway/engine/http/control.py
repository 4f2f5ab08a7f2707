"""ControlClient: the gateway's own questions to an engine: health, limits, slots, counts.

They go over connections of the engine as requests do, and are read whole. Streams do not come this
way: see exchange.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from trio_gateway.engine.errors import EngineLost, EngineSilent, EngineTalksGarbage
from trio_gateway.engine.http.connections import Connections
from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.http.opener import Opener
from trio_gateway.rawjson import decode_or_none

log = logging.getLogger(__name__)

ANSWER_MAX_BYTES = 16 * 1024**2
_HEADERS: list[Header] = [
    (b"Content-Type", b"application/json"),
    (b"Accept-Encoding", b"identity"),
]


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes

    @property
    def value(self) -> Any:
        """The decoded body of a 200; None for any other status, and if it is not JSON."""
        return decode_or_none(self.body) if self.status == 200 else None


class ControlClient:
    """`headers` go with each question. What it has open is closed with its `connections`."""

    def __init__(
        self, opener: Opener, connections: Connections, headers: Sequence[Header] = ()
    ) -> None:
        self.name = opener.authority.decode()
        self._opener, self._connections = opener, connections
        self._headers = [*_HEADERS, *headers]

    async def request(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer:
        """Raises EngineLost."""
        try:
            with trio.fail_after(timeout_s):  # for all of it
                return await self._request(method, target, body)
        except trio.TooSlowError:
            raise EngineSilent(f"no answer within {timeout_s:g} s") from None

    async def _request(self, method: str, target: str, body: bytes) -> Answer:
        connections = self._connections
        exchange = await connections.begin(self._opener, method, target, self._headers, body)
        try:
            await exchange.prefetch(ANSWER_MAX_BYTES)
            answer = await exchange.receive()
            if len(answer) > ANSWER_MAX_BYTES:
                raise EngineTalksGarbage(f"the engine's answer is over {ANSWER_MAX_BYTES} bytes")
            return Answer(exchange.status, answer)
        finally:
            connections.finish(exchange)

    async def ask(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer | None:
        """As `request`; None without an answer, which is logged."""
        try:
            return await self.request(method, target, timeout_s, body)
        except EngineLost as error:
            log.debug("%s %s%s: %r", method, self.name, target, error)
            return None
