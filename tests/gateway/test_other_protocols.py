"""HTTP/1.1 is all that is spoken, whatever a client asks for."""

from __future__ import annotations

import json
import ssl

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.server.http.tls import _new_context

PRIOR_KNOWLEDGE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
PATIENCE_S = 1000.0  # virtual


async def all_of(stack: Stack, sent: bytes) -> bytes:
    """What comes until the gateway closes the connection."""
    client = stack.network.connect()
    answer = b""
    with trio.fail_after(PATIENCE_S):
        await client.send_all(sent)
        while piece := await client.receive_some(65536):
            answer += piece
    await client.aclose()
    return answer


@pytest.mark.parametrize("sent", [PRIOR_KNOWLEDGE, PRIOR_KNOWLEDGE + SETTINGS * 100])
async def test_http2_by_prior_knowledge_is_refused_and_closed(
    autojump_clock: Clock, sent: bytes
) -> None:
    async with running_stack(config(model("m"))) as stack:
        begun = trio.current_time()
        answer = await all_of(stack, sent)
        assert trio.current_time() - begun < 10
    assert answer.startswith(b"HTTP/1.1 505 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "invalid_http"


async def test_http2_frames_alone_are_refused(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await all_of(stack, SETTINGS)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("upgrade", [b"h2c", b"TLS/1.2", b"websocket", b"h2c, websocket", b"x"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_post_that_asks_for_an_upgrade_is_answered_as_http1_body_and_all(
    autojump_clock: Clock, upgrade: bytes, framing: str
) -> None:
    body = chat()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % CHAT.encode()
    head += b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: %b\r\n" % upgrade
    head += b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
    if framing == "length":
        sent = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    async with running_stack(config(model("m"))) as stack:
        assert (await all_of(stack, sent)).startswith(b"HTTP/1.1 200 ")
        assert [asked[2] for asked in stack.engines.requests] == [body]


async def test_a_get_that_asks_for_h2c_does_not_get_past_the_rules(autojump_clock: Clock) -> None:
    upgrade = (
        b"GET /gateway/engines HTTP/1.1\r\nHost: evil.example\r\nConnection: upgrade, close\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    async with running_stack(config(model("m"))) as stack:
        answer = await all_of(stack, upgrade + PRIOR_KNOWLEDGE)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_tls_offers_no_other_protocol() -> None:
    context = _new_context()
    assert isinstance(context, ssl.SSLContext)
    client = ssl.create_default_context()
    client.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    asked = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        asked.do_handshake()
    hello = outgoing.read()
    assert b"\x02h2" in hello
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(server_in, server_out, server_side=True)
    server_in.write(hello)
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    assert server.selected_alpn_protocol() is None
