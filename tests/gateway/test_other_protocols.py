"""HTTP/1.1 is all that is spoken, whatever a client asks for."""

from __future__ import annotations

import json
import re
import ssl

import pytest
import trio
import trustme

from tests.support.asking import CHAT, Clock, chat
from tests.support.patience import patient
from tests.support.real_sockets import served
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey, ConnectionLimits
from trio_gateway.server.http.client_connections import ClientConnections
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


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nxyz\r\n--b--\r\n'
)
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
JSON, MULTIPART = b"application/json", b"multipart/form-data; boundary=b"
H2C = (
    b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
)
PATHS = {
    "a chat": (b"POST", CHAT.encode(), chat(), JSON, 200),
    "a prompt": (b"POST", b"/v1/completions", chat(prompt="Hi"), JSON, 200),
    "Ollama's chat": (b"POST", b"/api/chat", chat(stream=False), JSON, 200),
    "a form": (b"POST", b"/v1/audio/transcriptions", FORM, MULTIPART, 200),
    "an engine's own": (b"POST", b"/upstream/m/x", b"{}", JSON, 200),
    "a page": (b"GET", b"/v1/models", b"", JSON, 200),
    "an admin's page": (b"GET", b"/gateway/queue", b"", JSON, 200),
    "an admin's deed": (b"POST", b"/gateway/models/m/load", b"", JSON, 200),
    "an explanation": (b"POST", b"/gateway/explain", chat(), JSON, 200),
    "no path": (b"POST", b"/nowhere", b"{}", JSON, 404),
    "a bad body": (b"POST", CHAT.encode(), b"{", JSON, 400),
    "a method": (b"DELETE", b"/v1/models", b"", JSON, 405),
    "a preflight": (b"OPTIONS", CHAT.encode(), b"", JSON, 204),
}
USER, ADMIN = "a-user-s-key-0123456789", "an-admin-s-key-0123456789"
KEYS = AccessConfig(
    allowed_hosts=("gateway",),
    api_keys=(ApiKey(name="user", secret=USER), ApiKey(name="admin", secret=ADMIN, admin=True)),
)


def asks(method: bytes, path: bytes, body: bytes, kind: bytes, more: bytes = H2C) -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: gateway\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
    return head % (method, path, kind, len(body)) + more + b"\r\n" + body


def preflight_of(method: bytes) -> bytes:
    if method != b"OPTIONS":
        return b""
    return b"Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n"


def status_of(answer: bytes) -> int:
    """Of the one answer that came: a second one, or a frame, would follow it."""
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"101 Switching" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length is not None:
        assert len(body) == int(length[1])
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize(("method", "path", "body", "kind", "status"), PATHS.values(), ids=PATHS)
async def test_h2c_is_answered_as_http1_on_every_path(
    autojump_clock: Clock, method: bytes, path: bytes, body: bytes, kind: bytes, status: int
) -> None:
    async with running_stack(config(model("m"), access=KEYS)) as stack:
        stack.engines.kind.endpoints |= {"audio/transcriptions"}
        stack.engines.scripts, stack.engines.chunked = [[ANSWER]], True
        more = H2C + preflight_of(method) + b"Authorization: Bearer %b\r\n" % ADMIN.encode()
        answer = await all_of(stack, asks(method, path, body, kind, more))
    assert status_of(answer) == status


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("wrong", 401), (USER, 403)], ids=["none", "wrong", "a user's"]
)
@pytest.mark.parametrize("name", [n for n in PATHS if "admin" in n or n == "an engine's own"])
@pytest.mark.parametrize("then", [b"", PRIOR_KNOWLEDGE + SETTINGS], ids=["", "and HTTP/2"])
async def test_h2c_does_not_get_past_the_keys(
    autojump_clock: Clock, name: str, key: str | None, status: int, then: bytes
) -> None:
    method, path, body, kind, _ = PATHS[name]
    more = H2C if key is None else H2C + b"Authorization: Bearer %b\r\n" % key.encode()
    async with running_stack(config(model("m"), access=KEYS)) as stack:
        answer = await all_of(stack, asks(method, path, body, kind, more) + then)
        assert not stack.engines.requests
        assert not stack.engines.alive
    assert status_of(answer) == status


async def test_a_path_behind_a_proxy_that_passes_upgrades_on_keeps_its_rules(
    autojump_clock: Clock,
) -> None:
    """nginx with the usual lines for WebSockets, which says `Connection: upgrade` for all."""
    proxied = b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    first = asks(b"POST", b"/v1/nowhere", b"", JSON, proxied)
    smuggled = asks(b"GET", b"/gateway/engines", b"", JSON, b"Connection: close\r\n")
    async with running_stack(config(model("m"), access=KEYS)) as stack:
        answer = await all_of(stack, first + PRIOR_KNOWLEDGE + SETTINGS + smuggled)
    assert b" 200 " not in answer
    assert b"engines" not in answer


@pytest.mark.slow
@pytest.mark.parametrize("alpn", [None, ["h2"], ["h2", "http/1.1"]], ids=str)
@pytest.mark.parametrize("speaks", ["HTTP/1.1", "HTTP/2"])
async def test_inside_tls_it_is_the_same(alpn: list[str] | None, speaks: str) -> None:
    """With the context that TLS listeners have; without ALPN, too."""
    ca = trustme.CA()
    context = _new_context()
    ca.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    if alpn is not None:
        trusting.set_alpn_protocols(alpn)
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = stack.engines.stop_s = 0.0
        connections = ClientConnections(ConnectionLimits())
        async with served(
            stack.gateway, ConnectionLimits(), connections=connections, context=context
        ) as port:
            client = await trio.open_ssl_over_tcp_stream(
                "localhost", port, ssl_context=trusting, https_compatible=True
            )
            said = PRIOR_KNOWLEDGE + SETTINGS
            if speaks == "HTTP/1.1":
                said = asks(b"POST", CHAT.encode(), chat(), JSON).replace(b"gateway", b"localhost")
            answer = b""
            with trio.fail_after(patient(20)):
                try:
                    await client.send_all(said)
                    assert client.selected_alpn_protocol() != "h2"
                    # Its connection is kept open for some seconds, so that it can read its refusal.
                    while not answer.endswith(b"}"):
                        piece = await client.receive_some(65536)
                        assert piece
                        answer += piece
                except trio.BrokenResourceError:  # OpenSSL ends the handshake: nothing in common
                    assert alpn == ["h2"]
                    return
            assert status_of(answer) == (200 if speaks == "HTTP/1.1" else 505)
            await client.aclose()


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
