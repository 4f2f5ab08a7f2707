"""A network in memory: each connection is a pair of streams, with the gateway at one end."""

from __future__ import annotations

from typing import Any

import httpcore
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.types import AsgiApp


class MemoryNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network, where each connection is a memory stream with the gateway at its end."""

    def __init__(
        self,
        nursery: trio.Nursery,
        app: AsgiApp,
        connections: ClientConnections | None = None,
    ) -> None:
        self.nursery, self.app = nursery, app
        if connections is None:
            connections = ClientConnections(ConnectionLimits(), counted=False)
        self.connections = connections
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.errorlog = None
        self.servers_running = 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        return MemoryStream(self.connect())

    def connect(self, *, buffered: bool = True) -> Any:
        """A raw client stream. Unbuffered, the server's sends wait for the client to read."""
        ours, theirs = self._pair(buffered)
        theirs.socket = FakeSocket()
        self.nursery.start_soon(self.serve, theirs)
        return ours

    @staticmethod
    def _pair(buffered: bool) -> tuple[Any, Any]:
        if buffered:
            return trio.testing.memory_stream_pair()
        return trio.testing.lockstep_stream_pair()  # holds nothing at all

    async def serve(self, stream: Any) -> None:
        self.servers_running += 1
        try:
            app = ASGIWrapper(self.app)  # type: ignore[arg-type]
            await self.connections.serve(
                app, self.config, self.context, ConnectionState({}), stream
            )
        finally:
            self.servers_running -= 1


class FakeSocket:
    family = 2

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)

    def setsockopt(self, *_: object) -> None:
        pass

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 40000)


class MemoryStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return None
