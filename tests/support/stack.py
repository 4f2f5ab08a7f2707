"""A whole gateway in memory: fake engines behind it, a client before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpcore
import trio
import trio.testing

from tests.support.fakes import FakeEngines
from tests.support.memory_network import MemoryNetwork
from trio_gateway.config.schema import (
    GatewayConfig,
)
from trio_gateway.server.gateway import Gateway


class Stack:
    """A gateway with fake engines, and a client to it, all in memory."""

    def __init__(self, nursery: trio.Nursery, engines: FakeEngines, given: GatewayConfig) -> None:
        self.engines = engines
        self.gateway = Gateway(given, engines.manager(given))
        self.manager = self.gateway.manager
        self.network = MemoryNetwork(nursery, self.gateway)
        self.http = httpcore.AsyncConnectionPool(
            network_backend=self.network, max_keepalive_connections=0
        )

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> httpcore.Response:
        url = f"http://gateway{path}"
        given = [*headers.items()] if headers else None
        return await self.http.request("POST", url, content=body, headers=given)

    async def get(self, path: str) -> httpcore.Response:
        return await self.http.request("GET", f"http://gateway{path}")


@asynccontextmanager
async def running_stack(given: GatewayConfig) -> AsyncIterator[Stack]:
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, FakeEngines(), given)
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")
