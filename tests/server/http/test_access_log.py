"""What hypercorn's access log says of requests and WebSockets."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.memory_network import MemoryNetwork
from trio_gateway.server.http.types import HALF_CLOSED_S, Message, Scope

WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def app(scope: Scope, receive: Any, send: Any) -> None:
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    start: Message = {"type": f"{kind}.response.start", "status": 418, "headers": []}
    match scope["path"]:
        case "/answers":
            await send(start)
            await send({"type": f"{kind}.response.body", "body": b"tea"})
        case "/accepts":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        case "/closes":
            await send({"type": "websocket.close"})
        case "/waits":
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/answers", b"", "418"),
        ("/waits", b"", "-"),  # the client leaves
        ("/answers", WEBSOCKET, "418"),
        ("/accepts", WEBSOCKET, "101"),
        ("/closes", WEBSOCKET, "403"),
    ],
)
async def test_each_request_has_one_line(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    path: str,
    fields: bytes,
    status: str,
) -> None:
    network = MemoryNetwork(nursery, app)
    network.config.accesslog = logging.getLogger("test.access")
    network.config.access_log_format = "%(U)s %(s)s"
    client = network.connect()
    with caplog.at_level(logging.INFO, "test.access"):
        await client.send_all(b"GET %b HTTP/1.1\r\nHost: g\r\n%b\r\n" % (path.encode(), fields))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.sleep(HALF_CLOSED_S + 0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == "test.access"]
    assert lines == [f"{path} {status}"]
