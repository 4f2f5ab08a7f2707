"""One shape of errors for each family of clients, wherever in the gateway an error comes from.

The table is families times places. Raw requests go over hypercorn and memory streams to a whole
gateway, and what comes back is read as any client reads it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from tests.support.asking import Clock
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey, ConnectionLimits
from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.refusal import family_of, last_refusal, refusal_in

KEY, BUSY_KEY = "tg-user-0123456789", "tg-busy-0123456789"
LIMITS = ConnectionLimits(
    max_header_bytes=2000, header_timeout_s=10, body_timeout_s=20, connections_per_address=2
)
MAX_BODY = 1000


class Client(NamedTuple):
    """Who asks: a path of its API, what it sends along, and the check of its errors' shape."""

    path: str
    headers: Mapping[str, str]
    check: Callable[[Any], None]


def check_openai(body: Any) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}


def check_anthropic(body: Any) -> None:
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}


def check_ollama(body: Any) -> None:
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)


VERSION = {"Anthropic-Version": "2023-06-01"}
CLIENTS = {
    "OpenAI": Client("/v1/chat/completions", {}, check_openai),
    "Anthropic by its path": Client("/v1/messages", {}, check_anthropic),
    "Anthropic by its header": Client("/v1/chat/completions", VERSION, check_anthropic),
    "Anthropic by its header, elsewhere": Client("/api/chat", VERSION, check_anthropic),
    "Ollama": Client("/api/chat", {}, check_ollama),
    "llama.cpp": Client("/infill", {}, check_openai),
}


class Place(NamedTuple):
    """Where a request is refused, and with which request one gets there."""

    status: int
    method: str = "POST"
    below: str = ""  # goes after the client's path
    headers: Mapping[str, str] = {}
    body: bytes = b""
    key: str | None = KEY
    closing: bool = False


def chat(name: str) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": name, "messages": messages, "max_tokens": 8}
    return json.dumps({**body, "input_prefix": "a", "input_suffix": "b"}).encode()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
PLACES = {
    # before the guard
    "headers too large": Place(431, headers={"X": "x" * 2000}),
    "compressed": Place(415, headers={"Content-Encoding": "gzip"}, body=b"{}"),
    "two lengths": Place(400, headers={"Transfer-Encoding": "chunked"}, body=b"0\r\n\r\n"),
    # the guard
    "foreign host": Place(403, headers={"Host": "evil.example"}),
    "foreign page": Place(403, headers={"Origin": "https://evil.example"}),
    "no key": Place(401, key=None),
    "wrong key": Place(401, key="tg-wrong"),
    "too many requests": Place(429, key=BUSY_KEY),
    # behind it
    "unknown path": Place(404, below="/nowhere"),
    "method": Place(405, method="DELETE"),
    "stopping": Place(503, body=b"{}", closing=True),
    "no JSON": Place(400, body=b"{"),
    "body too large": Place(413, body=b" " * (MAX_BODY + 1)),
    "body does not come": Place(408, headers={"Content-Length": "2"}, body=b"{"),
    "unknown model": Place(404, body=chat("nix")),
    # in place of a WebSocket, before the guard's end and after it
    "WebSocket without a key": Place(401, method="GET", headers=UPGRADE, key=None),
    "no WebSocket there": Place(404, method="GET", headers=UPGRADE),
}


@asynccontextmanager
async def serving() -> AsyncIterator[Stack]:
    access = AccessConfig(
        allowed_hosts=("gateway",),
        api_keys=(
            ApiKey(name="user", secret=KEY),
            ApiKey(name="busy", secret=BUSY_KEY, max_parallel=0),
        ),
    )
    given = config(model("m"), access=access, limits=LIMITS, max_body_bytes=MAX_BODY)
    async with running_stack(given) as stack:
        stack.network.connections = ClientConnections(LIMITS)
        stack.network.config = HttpConfig(LIMITS)
        stack.network.config.keep_alive_timeout = 75
        yield stack


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def answer_of(client: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one answer that comes."""
    data = b""

    async def more() -> bytes:
        piece: bytes = await client.receive_some(65536)
        assert piece, data
        return piece

    with trio.fail_after(1000):
        while b"\r\n\r\n" not in data:
            data += await more()
        before, _, body = data.partition(b"\r\n\r\n")
        first, *lines = before.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        while len(body) < int(headers["content-length"]):
            body += await more()
    return int(first.split(" ")[1]), headers, body


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
async def test_an_error_has_the_shape_of_its_clients_api(
    autojump_clock: Clock, client: Client, place: Place
) -> None:
    length = {"Content-Length": str(len(place.body))} if place.method == "POST" else {}
    key = {} if place.key is None else {"Authorization": f"Bearer {place.key}"}
    headers = {"Host": "gateway", **length, **key, **client.headers, **place.headers}
    async with serving() as stack:
        if place.closing:
            stack.gateway.begin_shutdown()
        stream = stack.network.connect()
        path = client.path + place.below
        await stream.send_all(head(place.method, path, headers) + place.body)
        status, answered, body = await answer_of(stream)
    assert status == place.status
    assert answered["content-type"] == "application/json"
    assert "x-gateway-request-id" in answered
    client.check(json.loads(body))


@pytest.mark.parametrize(
    ("sent", "status", "check"),
    [
        (b"\x16\x03\x01 not HTTP\r\n\r\n", 400, check_openai),
        (b"POST /v1/messages HT", 408, check_anthropic),
        (b"POST /api/chat HTTP/1.1\r\nHo", 408, check_ollama),
        (b"POST /v1/x HTTP/1.1\r\nAnthropic-Version: x\r\nHo", 408, check_anthropic),
    ],
)
async def test_where_no_request_can_be_read_what_can_be_made_out_of_it_gives_the_shape(
    autojump_clock: Clock, sent: bytes, status: int, check: Callable[[Any], None]
) -> None:
    async with serving() as stack:
        stream = stack.network.connect()
        await stream.send_all(sent)
        answered, headers, body = await answer_of(stream)
    assert (answered, headers["connection"]) == (status, "close")
    check(json.loads(body))


async def test_a_connection_too_many_is_told_so_without_its_request() -> None:
    async with serving() as stack:
        for _ in range(LIMITS.connections_per_address):
            sends = {"Host": "gateway", "Content-Length": "9", "x-api-key": KEY}
            await stack.network.connect().send_all(head("POST", "/v1/completions", sends))
            await trio.testing.wait_all_tasks_blocked()
        status, headers, body = await answer_of(stack.network.connect())
    assert (status, headers["connection"], headers["retry-after"]) == (429, "close", "1")
    check_openai(json.loads(body))


@pytest.mark.parametrize(
    ("key", "method", "path", "name", "value"),
    [
        (None, "POST", "/api/chat", "www-authenticate", "Bearer"),
        (KEY, "DELETE", "/api/chat", "allow", "OPTIONS, POST"),
        (KEY, "GET", "/v1/realtime", "upgrade", "websocket"),
    ],
)
async def test_what_belongs_to_an_error_is_in_its_headers(
    autojump_clock: Clock, key: str | None, method: str, path: str, name: str, value: str
) -> None:
    given = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with serving() as stack:
        stream = stack.network.connect()
        await stream.send_all(head(method, path, {"Host": "gateway", **given}))
        _, headers, _ = await answer_of(stream)
    assert headers[name] == value


# -- alone ----------------------------------------------------------------------------------------


def scope(path: str = "/", **fields: Any) -> dict[str, Any]:
    return {"type": "http", "http_version": "1.1", "path": path, "headers": [], **fields}


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/messages", Family.ANTHROPIC),
        ("/v1/messages/count_tokens", Family.ANTHROPIC),
        ("/v1/messagesx", Family.OPENAI),
        ("/api/chat", Family.OLLAMA),
        ("/api", Family.OPENAI),
        ("/v1/completions", Family.OPENAI),
        ("/completions", Family.LLAMACPP),
        ("/completion", Family.LLAMACPP),
        ("/chat/completions", Family.LLAMACPP),
        ("/v1/rerank", Family.LLAMACPP),
        ("/tokenize", Family.LLAMACPP),
        ("/slots", Family.LLAMACPP),
        ("/slots/0", Family.LLAMACPP),
        ("/metrics", Family.LLAMACPP),
        ("/models/m", Family.LLAMACPP),
        ("/v1/models/m", Family.OPENAI),
        ("/upstream/m/slots/0", Family.LLAMACPP),
        ("/upstream/org/m/metrics", Family.LLAMACPP),
        ("/upstream/org/m/api/chat", Family.OLLAMA),
        ("/upstream/m/api/tags", Family.OLLAMA),
        ("/upstream/a/b/v1/messages", Family.ANTHROPIC),
        ("/upstream/m/completion", Family.LLAMACPP),
        ("/upstream/m/v1/chat/completions", Family.OPENAI),
        ("/upstream/m/", Family.OPENAI),
        ("/gateway/queue", Family.OPENAI),
    ],
)
def test_a_path_tells_whose_client_asks(path: str, family: Family) -> None:
    assert family_of(path, []) is family
    assert family_of(path, [b"anthropic-version"]) is Family.ANTHROPIC


@pytest.mark.parametrize("given", [None, "tg-wrong"])
@pytest.mark.parametrize(
    ("path", "headers", "types"),
    [
        ("/v1/messages", {}, ("authentication_error", "permission_error")),
        ("/v1/messages/count_tokens", {}, ("authentication_error", "permission_error")),
        ("/v1/models", VERSION, ("authentication_error", "permission_error")),
        ("/completion", {}, ("authentication_error", "permission_error")),
        ("/completions", {}, ("authentication_error", "permission_error")),
        ("/infill", {}, ("authentication_error", "permission_error")),
        ("/tokenize", {}, ("authentication_error", "permission_error")),
        ("/v1/rerank", {}, ("authentication_error", "permission_error")),
        ("/props", {}, ("authentication_error", "permission_error")),
        ("/upstream/m/v1/messages", {}, ("authentication_error", "permission_error")),
        ("/v1/chat/completions", {}, ("invalid_request_error", "permission_error")),
        ("/v1/embeddings", {}, ("invalid_request_error", "permission_error")),
    ],
)
async def test_who_may_not_ask_is_told_with_the_type_that_its_client_looks_for(
    autojump_clock: Clock,
    path: str,
    headers: Mapping[str, str],
    types: tuple[str, str],
    given: str | None,
) -> None:
    async with serving() as stack:
        key = {} if given is None else {"Authorization": f"Bearer {given}"}
        answer = await stack.post(path, b"{}", {"Host": "gateway", **headers, **key})
        assert (answer.status, json.loads(answer.content)["error"]["type"]) == (401, types[0])
        foreign = {"Host": "evil.example", **headers}
        answer = await stack.post(path, b"{}", foreign)
        assert (answer.status, json.loads(answer.content)["error"]["type"]) == (403, types[1])


@pytest.mark.parametrize(
    ("fields", "closes", "said"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"type": "websocket"}, False, True),
    ],
)
def test_a_connection_is_closed_where_its_next_request_cannot_be_found(
    fields: dict[str, Any], closes: bool, said: bool
) -> None:
    refusal = refusal_in(scope(**fields), ApiError(400, "no", closes_connection=closes))
    assert ((b"connection", b"close") in refusal.headers) == said


def test_an_error_without_a_protocol_is_a_whole_http1_answer() -> None:
    refusal = last_refusal(ApiError(429, "no", retry_after_s=2.5))
    body = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'
    assert refusal.as_http1().split(b"\r\n") == [
        b"HTTP/1.1 429 Too Many Requests",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"retry-after: 3",
        b"connection: close",
        b"",
        body,
    ]
