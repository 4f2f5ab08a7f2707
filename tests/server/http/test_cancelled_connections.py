"""A connection that is cancelled leaves nothing behind, at whichever of its checkpoints that is."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.cancelling import cancel_at_each_step
from tests.support.memory_network import FakeSocket, MemoryNetwork
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import REQUEST_KEY, Scope

CHUNKED = b"POST / HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n"
CLIENTS = {
    "one after the other": [b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"] * 2,
    "both at once": [b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n" * 2],
    "a body in parts": [CHUNKED + b"\r\n5\r\nhe", b"llo\r\n0\r\n\r\n"],
    "a body that is asked for": [CHUNKED + b"Expect: 100-continue\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"],
    "no request": [b"\x16\x03\x01"],
    "a body that is not one": [CHUNKED + b"\r\n", b"x"],
    "a WebSocket": [
        b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"\x89\x80\x00\x00\x00\x00",  # a ping
        b"\x81\x82\x00\x00\x00\x00hi",
        b"\x88\x80\x00\x00\x00\x00",  # a close
    ],
}


@pytest.mark.parametrize("said", CLIENTS.values(), ids=CLIENTS)
async def test_of_a_cancelled_connection_nothing_is_left(
    autojump_clock: trio.testing.MockClock, said: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    held, talking = set[str](), 0

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        request = scope[REQUEST_KEY].id
        held.add(request)
        scope[REQUEST_KEY].stack.callback(held.remove, request)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": []})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            return
        while (await scope[REQUEST_KEY].upload.receive()) != b"":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part, more in ((b"a", True), (b"b", False)):
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def talk(stream: Any) -> None:
        """Say each when the server has answered the last, then hear it out."""
        nonlocal talking
        talking += 1
        with contextlib.suppress(trio.BrokenResourceError):
            for part in said:
                await stream.send_all(part)
                await trio.sleep(0.1)
            await stream.send_eof()
        while await stream.receive_some(65536):
            pass
        talking -= 1

    connections = ClientConnections(ConnectionLimits(connections_per_address=1))
    async with trio.open_nursery() as clients:
        network = MemoryNetwork(clients, RequestScopes(app), connections)

        async def serve() -> None:
            ours, theirs = trio.testing.memory_stream_pair()
            theirs.socket = FakeSocket()  # type: ignore[attr-defined]
            clients.start_soon(talk, ours)
            await network.serve(theirs)

        def check(step: int) -> None:
            left = (len(connections), len(connections.counts or ()), len(held))
            assert left == (0, 0, 0), step
            assert (len(connections.places), connections.read_ahead.held) == (0, 0), step

        assert await cancel_at_each_step(serve, check) > 5
        await trio.sleep(10)
        assert talking == 0  # each heard the end of its connection
    assert not caplog.records
