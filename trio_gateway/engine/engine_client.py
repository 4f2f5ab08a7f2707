"""EngineClient: what the gateway asks of any engine, over HTTP."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec

from trio_gateway.engine.http_exchange import (
    EngineDisconnected,
    Exchange,
    ExchangeAborted,
    Header,
    open_exchange,
)


class Health(msgspec.Struct, frozen=True):
    """`ok` is true for a 200; `detail` is for error messages: a status or the error."""

    ok: bool
    detail: str


class EngineFacts(msgspec.Struct, frozen=True):
    """What a ready engine says of itself; None where it does not say.

    `places`: requests that it works on at a time. `context`: tokens that one of them may use.
    """

    places: int | None = None
    context: int | None = None


def local_host(host: str) -> str:
    """One spelling of an address of this machine, one that a client can connect to."""
    return {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)


class EngineClient(abc.ABC):
    """Speaks to one engine at `base_url` (`http://host:port`). Close it with `aclose`."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self.base_url = base_url
        self.host, self.port = parts.hostname, parts.port or 80
        self._open: set[Exchange] = set()
        self._over: EngineDisconnected | ExchangeAborted | None = None

    @staticmethod
    @abc.abstractmethod
    def launch_args(args: Sequence[str], host: str, port: int) -> list[str]:
        """The arguments that make the engine listen at this address."""

    @staticmethod
    @abc.abstractmethod
    def listen_host(args: Sequence[str]) -> str:
        """Where on this machine an engine with these arguments is reached."""

    @staticmethod
    @abc.abstractmethod
    def fixed_address(args: Sequence[str]) -> tuple[str, int] | None:
        """The address that the arguments themselves ask for, if they name a port."""

    @staticmethod
    @abc.abstractmethod
    def get_supported_endpoints() -> frozenset[str]:
        """Paths of the OpenAI API that this engine serves, without `/v1` in front."""

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

    def transform_request(self, endpoint: str, body: bytes) -> bytes:
        """The body as the engine wants it. The client's own bytes, unless a type needs more."""
        return body

    def transform_response(self, headers: Sequence[Header]) -> list[Header]:
        """The engine's headers as the client gets them."""
        return [(name, value) for name, value in headers if name not in _NOT_PASSED_ON]

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes
    ) -> AsyncIterator[Exchange]:
        """Send a request; the block has the answer's status, headers and byte stream.

        Leaving the block, by cancellation too, closes the connection at once.

        Raises:
            EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        opened: list[Exchange] = []

        def keep(exchange: Exchange) -> None:
            opened.append(exchange)
            self._open.add(exchange)
            if self._over is not None:
                exchange.abort(self._over)

        try:
            yield await open_exchange(
                self.host, self.port, method, target, headers, body, on_open=keep
            )
        finally:
            for exchange in opened:
                exchange.close()
                self._open.discard(exchange)

    def abort_all(self, error: EngineDisconnected | ExchangeAborted) -> None:
        """End every request that is under way, and any that comes later; each gets this error."""
        self._over = error
        for exchange in [*self._open]:
            exchange.abort(error)

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release what the client holds."""


# Hop-by-hop headers, and those that speak of the engine's server rather than of the answer. An
# engine's CORS headers would let any web page read what the gateway answers.
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
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-expose-headers",
    }
)
