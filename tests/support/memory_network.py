"""A network in memory: each connection is a pair of streams with hypercorn at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpcore
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_gateway.server.http.install import install
from trio_gateway.server.http.repairs import CancellableTCPServer
from trio_gateway.server.http.types import AsgiApp


class MemoryNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network, where each connection is a memory stream with hypercorn at its end."""

    def __init__(
        self,
        nursery: trio.Nursery,
        app: AsgiApp,
        server_type: Callable[..., TCPServer] = CancellableTCPServer,
    ) -> None:
        install()
        self.nursery, self.app, self.server_type = nursery, app, server_type
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
            await self.server_type(
                app, self.config, self.context, ConnectionState({}), stream
            ).run()
        finally:
            self.servers_running -= 1


class FakeSocket:
    family = 2

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)

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
