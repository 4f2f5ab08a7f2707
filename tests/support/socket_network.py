"""MemoryNetwork of TCP sockets, for which a connection notices its end in another way."""

from __future__ import annotations

import socket
from typing import Any

import trio

from tests.support.memory_network import MemoryNetwork


class SocketNetwork(MemoryNetwork):
    """Its sockets are closed with its nursery."""

    def connect(self, *, buffered: bool = True) -> Any:
        """A raw client stream, which its system buffers."""
        assert buffered
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        ours, theirs = (
            trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in (client, server)
        )
        self.nursery.start_soon(self.serve, theirs)
        self.nursery.start_soon(_closed_at_the_end, ours)
        return ours


async def _closed_at_the_end(stream: trio.SocketStream) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stream.socket.close()
