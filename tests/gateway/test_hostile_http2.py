"""Hostile requests over HTTP/2, which hypercorn also speaks without TLS ("prior knowledge")."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
import trio

from tests.support.asking import CHAT, Clock, chat
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack

Header = tuple[bytes, bytes]
PATIENCE_S = 100.0  # virtual


def head(
    path: bytes, *headers: Header, method: bytes = b"GET", scheme: bytes = b"http"
) -> list[Header]:
    first = [(b":method", method), (b":path", path), (b":scheme", scheme)]
    return [*first, (b":authority", b"localhost"), *headers]


async def ask(stack: Stack, headers: list[Header], body: bytes = b"") -> int | None:
    """The status of the answer; None: the stream or the connection was ended without one."""
    settings = h2.config.H2Configuration(
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
    )
    connection = h2.connection.H2Connection(settings)
    connection.initiate_connection()
    connection.send_headers(1, headers, end_stream=not body)
    if body:
        connection.send_data(1, body, end_stream=True)
    client = stack.network.connect()
    status = None
    with trio.move_on_after(PATIENCE_S):
        await client.send_all(connection.data_to_send())
        while status is None and (piece := await client.receive_some(65536)):
            for event in connection.receive_data(piece):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
    await client.aclose()
    return status


HOSTILE = {
    "a line end in the path": head(b"/upstream/m/x HTTP/1.1\r\nX-Smuggled: 1\r\n\r\n"),
    "a line end in the query": head(b"/upstream/m/x?y\r\nX-Smuggled: 1"),
    "a blank in the path": head(b"/upstream/m/x HTTP/1.1"),
    "a blank in the query": head(b"/upstream/m/x?a b"),
    "a tab in the query": head(b"/upstream/m/x?a\tb"),
    "a NUL in the query": head(b"/upstream/m/x?a\x00b"),
    "letters in the query": head(b"/upstream/m/x?\xff\xc3\xa9"),
    "letters in the path": head(b"/upstream/m/\xc3\xa9"),
    "an empty path": head(b""),
    "a path without /": head(b"upstream/m/x"),
    "an absolute path": head(b"http://other/upstream/m/x"),
    "a way up": head(b"/upstream/m/../x"),
    "a line end in the method": head(b"/upstream/m/x", method=b"GET / HTTP/1.1\r\nX: y\r\n\r\nGET"),
    "a line end in a header": head(b"/upstream/m/x", (b"accept", b"a\r\nX-Smuggled: 1")),
    "a NUL in a header": head(b"/upstream/m/x", (b"accept", b"a\x00b")),
    "capitals in a name": head(b"/upstream/m/x", (b"ACCEPT", b"x")),
    "a colon in a name": head(b"/upstream/m/x", (b"a:b", b"x")),
    "an empty name": head(b"/upstream/m/x", (b"", b"x")),
    "a transfer-encoding": head(b"/upstream/m/x", (b"transfer-encoding", b"chunked")),
    "a connection": head(b"/upstream/m/x", (b"connection", b"upgrade")),
    "two paths": head(b"/upstream/m/x", (b":path", b"/upstream/m/y")),
    "a late pseudo header": [*head(b"/upstream/m/x", (b"accept", b"x")), (b":status", b"200")],
    "no path": [h for h in head(b"/upstream/m/x") if h[0] != b":path"],
    "no method": [h for h in head(b"/upstream/m/x") if h[0] != b":method"],
    "too long a length": head(b"/upstream/m/x", (b"content-length", b"9" * 30)),
    "a negative length": head(b"/upstream/m/x", (b"content-length", b"-1")),
    "a tunnel": head(b"/upstream/m/x", method=b"CONNECT"),
    "a compressed body": head(b"/upstream/m/x", (b"content-encoding", b"gzip")),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_none_reaches_an_engine_and_the_next_is_served(
    autojump_clock: Clock, name: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.post(CHAT, chat())).status == 200
        stack.engines.requests.clear()
        status = await ask(stack, HOSTILE[name])
        assert status is None or 400 <= status < 500
        assert not stack.engines.requests
        assert await ask(stack, head(CHAT.encode(), method=b"POST"), chat()) == 200
        assert (await stack.post(CHAT, chat())).status == 200


async def test_what_is_fine_is_passed_on(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert await ask(stack, head(b"/upstream/m/x?a=%20b", (b"accept", b"x"))) == 200
        assert stack.engines.requests == [("/x?a=%20b", {b"accept": b"x"}, b"")]
