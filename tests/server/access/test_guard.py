"""Who may call: pages, hosts, keys, and what a key may do. Over hypercorn and memory streams."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpcore
import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of
from tests.support.memory_network import MemoryNetwork
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.key_hash import hash_of
from trio_gateway.config.places import Place, read_place
from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import GatewayConfig, ListenAddress, ServerConfig
from trio_gateway.server.access import key_ring
from trio_gateway.server.access.browser_rules import BrowserRules
from trio_gateway.server.access.guard import AccessGuard, needs_admin
from trio_gateway.server.access.key_ring import KeyRing, WrongKeys
from trio_gateway.server.access.permissions import Permissions, permissions_of
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import Scope

KEY, ADMIN = "tg-user-0123456789", "tg-admin-0123456789"
KEYS = (
    ApiKey(name="user", secret=KEY, models=frozenset({"m"}), max_parallel=1),
    ApiKey(name="admin", secret=ADMIN, admin=True),
    ApiKey(name="night", secret="tg-batch", priority=Priority.BATCH),
)
BEARER = {"Authorization": f"Bearer {KEY}"}
PAGE = "http://localhost:3000"


def guarded(**access: Any) -> GatewayConfig:
    hosts = ("gateway",)
    return config(model("m"), access=AccessConfig(**{"allowed_hosts": hosts, **access}))


async def ask(
    stack: Stack, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> httpcore.Response:
    given = [*{"Host": "gateway", **headers}.items()]
    return await stack.http.request(method, f"http://gateway{path}", headers=given, content=body)


def text_headers(response: httpcore.Response) -> dict[str, str]:
    return {k.decode().lower(): v.decode() for k, v in response.headers}


# -- hosts and pages: pure ---------------------------------------------------------------------


def rules(*, hosts: str = "", origins: str = "localhost") -> BrowserRules:
    listen = frozenset({"192.168.1.20", "box"})
    return BrowserRules(frozenset(map(place, hosts.split())), frozenset(origins.split()), listen)


def place(text: str) -> Place:
    read = read_place(text)
    assert read is not None
    return read


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LocalHost:7777", "localhost.", "chat.localhost:80", "127.0.0.1.",
        "[::ffff:127.0.0.1]", "[FD00:0:0::1]", "localhost:", "localhost:65535", "[::1]:",
        "127.0.0.1:7777", "[::1]",
        "[::1]:7777", "192.168.1.20:7777", "10.0.0.5:1", "box", "ai.example.org",
        "ai.example.org:443", "proxy:8443", "[fd00::1]:7777",
    ],
)  # fmt: skip
def test_names_of_this_gateway_are_right_hosts(host: str) -> None:
    mine = rules(hosts="ai.example.org proxy:8443 [fd00::1]")
    assert mine.check_host([host], "10.0.0.5") == place(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7777", "localhost.evil.example", "127.0.0.1.evil.example",
        "notlocalhost", "10.0.0.6", "proxy:80", "[fd00::2]", "0.0.0.0", "ai.example.org.evil",
        "127.1", "0x7f.1", "2130706433", "127.0.0.010", "localhost.evil", "xn--localhost-9ya",
    ],
)  # fmt: skip
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(ApiError) as refused:
        rules(hosts="ai.example.org proxy:8443 [fd00::1]").check_host([host], "10.0.0.5")
    assert (refused.value.status, refused.value.code) == (403, "host_not_allowed")


@pytest.mark.parametrize("hosts", [[], [""], ["localhost", "localhost"], ["localhost", "evil"]])
def test_no_host_and_more_than_one_are_400(hosts: list[str]) -> None:
    with pytest.raises(ApiError) as refused:
        rules().check_host(hosts, "127.0.0.1")
    assert (refused.value.status, refused.value.code) == (400, "invalid_host")


NO_HOSTS = [
    "localhost..", ".localhost", "a..localhost", "..", ".", "a" * 64 + ".localhost",
    "a." * 130 + "localhost", "\xe4.localhost", "localhost\xa0", "ss\xad.localhost", "*.localhost",
    "%6c.localhost", "user@localhost", "user:pw@localhost", "localhost@evil", "local host",
    "localhost/", "localhost?x", "localhost#", "localhost\\", "localhost,evil", "localhost;",
    "localhost:0", "localhost:65536", "localhost:99999", "localhost:123456", "localhost:abc",
    "localhost:+80", "localhost: 80", "localhost:80:80", "localhost:-1", "localhost:8_0",
    "localhost:\xb2", "[", "[]", "[::1", "[::1]x", "[::1].evil.com", "[::1]:x", "[::1%lo]",
    "[::1%25lo]", "[v1.x]", "[127.0.0.1]", "[localhost]", "[::1]]", "[[::1]]", "::1", "[:::1]",
    "http://localhost", "//localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_400(host: str) -> None:
    with pytest.raises(ApiError) as refused:
        rules().check_host([host], "127.0.0.1")
    assert (refused.value.status, refused.value.code) == (400, "invalid_host")


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v1/models", {"error"}), ("/v1/messages", {"type"}), ("/api/tags", {"error"}),
                        ("/nowhere", {"error"}), ("/upstream/m", {"error"})]
)  # fmt: skip
async def test_no_spelling_of_the_host_is_a_bug(
    autojump_clock: Clock, path: str, shape: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with running_stack(guarded()) as stack:
        for host in [*NO_HOSTS, "xn--.localhost", "-a.localhost", "a_b.localhost", "localhost."]:
            url, given = f"http://gateway{path}", [("Host", host.encode("latin-1"))]
            response = await stack.http.request("GET", url, headers=given)
            expected = (400,) if host in NO_HOSTS else (200, 308, 403, 404, 405)
            assert response.status in expected, host
            if response.status >= 400:
                assert shape <= json.loads(response.content).keys()
    assert not [r for r in caplog.records if r.exc_info or r.levelname == "ERROR"]


def test_on_a_unix_socket_the_host_is_checked_as_well() -> None:
    mine = rules(hosts="ai.example.org")
    for host in ("localhost", "127.0.0.1", "ai.example.org", "app.localhost", "box"):
        assert mine.check_host([host], None) == place(host)
    for host in ("evil.example", "anything", "10.0.0.5"):
        with pytest.raises(ApiError) as refused:
            mine.check_host([host], None)
        assert (refused.value.status, refused.value.code) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    ("origin", "host", "origins", "answer"),
    [
        (None, "x", "", None),
        (PAGE, "x", "localhost", PAGE),
        ("https://127.0.0.1", "x", "localhost", "https://127.0.0.1"),
        ("http://[::1]:9", "x", "localhost", "http://[::1]:9"),
        ("http://box:7777", "box:7777", "", "http://box:7777"),
        ("https://ai.example.org", "ai.example.org", "", "https://ai.example.org"),
        ("https://ai.example.org", "ai.example.org:443", "", "https://ai.example.org"),
        ("https://a.b", "x", "https://a.b", "https://a.b"),
        ("app://obsidian.md", "x", "app://*", "app://obsidian.md"),
        ("app://.", "x", "app://*", "app://."),
        ("http://app.localhost:3000", "x", "localhost", "http://app.localhost:3000"),
        ("https://tauri.localhost", "x", "localhost", "https://tauri.localhost"),
        ("http://tauri.localhost", "x", "localhost", "http://tauri.localhost"),
        ("tauri://localhost", "x", "localhost", "tauri://localhost"),
        ("http://localhost.:80", "x", "localhost", "http://localhost.:80"),
        ("http://[::ffff:127.0.0.1]", "x", "localhost", "http://[::ffff:127.0.0.1]"),
        ("https://evil.example", "x", "*", "*"),
        ("null", "x", "*", "*"),
        ("https://a.b", "x", "* https://a.b", "https://a.b"),
    ],
)
def test_pages_that_may_call(
    origin: str | None, host: str, origins: str, answer: str | None
) -> None:
    given = [] if origin is None else [origin]
    assert rules(origins=origins).check_origin(given, place(host)) == answer


@pytest.mark.parametrize(
    ("origin", "host", "origins"),
    [
        ("https://evil.example", "x", "localhost"),
        ("null", "x", "localhost app://*"),
        (PAGE, "x", "https://a.b"),
        ("http://localhost.evil.example", "x", "localhost"),
        ("http://127.0.0.1.evil.example", "x", "localhost"),
        ("http://box:8000", "box:7777", ""),
        ("http://box", "box:7777", ""),
        ("app://x", "x", "localhost"),
        ("app://localhost", "x", "localhost"),
        ("https://a.b.evil", "x", "https://a.b"),
        ("http://a.b", "x", "https://a.b"),
        ("", "x", "localhost"),
        *(
            (origin, "x", "localhost")
            for origin in (
                "http://[::1].evil.com",
                "http://localhost:80.evil.com",
                "http://localhost:.evil.com",
                "http://127.0.0.1:80@evil.com",
                "http://localhost@evil.com",
                "http://localhost/",
                "http://localhost/.evil.com",
                "http://localhost..",
                "http://[::1%25lo]",
                "http:localhost",
                "http://localhost:0",
                "http://localhost:65536",
                "http://localhost, http://evil.com",
                "http://localhost http://evil.com",
                "http://\xe4.localhost",
                "http://.localhost",
                "tauri://evil.example",
                "tauri://",
                "ftp://localhost",
                "http://localhost#",
                "http://",
                "file://localhost",
                "http://app.localhost.evil.com",
                "http://applocalhost",
                "http://localhost\xa0",
                "capacitor://localhost",
            )
        ),
        ("http://box.evil.com", "box", ""),
        ("http://[::1].evil.com", "[::1]", ""),
        ("http://box:80.evil.com", "box", ""),
        ("ftp://box", "box", ""),
    ],
)
def test_pages_that_may_not(origin: str, host: str, origins: str) -> None:
    with pytest.raises(ApiError) as refused:
        rules(origins=origins).check_origin([origin], place(host))
    assert (refused.value.status, refused.value.code) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    ("site", "host", "origins", "allowed"),
    [
        ("", "localhost", "localhost", True),
        ("none", "localhost", "", True),
        ("same-origin", "localhost", "", True),
        ("cross-site", "localhost", "localhost https://a.b", False),
        ("cross-site", "localhost", "*", True),
        ("same-site", "127.0.0.1:7777", "localhost", True),
        ("same-site", "127.0.0.1:7777", "https://a.b", False),
        ("same-site", "ai.example.org", "localhost", False),
    ],
)
def test_what_a_page_loads_without_an_origin(
    site: str, host: str, origins: str, allowed: bool
) -> None:
    try:
        rules(origins=origins).check_fetch_site(site, place(host))
        found = True
    except ApiError:
        found = False
    assert found is allowed


@pytest.mark.parametrize(
    ("path", "admin"),
    [
        ("/gateway/queue", True), ("/upstream/m/", True), ("//gateway/queue", True),
        ("/%67ateway/queue", True), ("/GATEWAY/queue", True), ("/gateway", True), ("/slots", True),
        ("/v1/models", False), ("/gatewayx", False), ("/v1/gateway/x", False), ("/", False),
    ],
)  # fmt: skip
def test_which_paths_are_an_admin_s(path: str, admin: bool) -> None:
    assert needs_admin(path) is admin


def test_a_header_lowers_the_priority_of_a_key_and_never_raises_it() -> None:
    interactive, batch = Permissions("a"), Permissions("b", Priority.BATCH)
    assert interactive.priority_of(None) is Priority.INTERACTIVE
    assert interactive.priority_of(Priority.BATCH) is Priority.BATCH
    assert batch.priority_of(None) is Priority.BATCH
    assert batch.priority_of(Priority.INTERACTIVE) is Priority.BATCH


def test_a_grant_names_its_models() -> None:
    assert Permissions("a").allows("m")
    assert Permissions("a", models=frozenset({"m"})).allows("m")
    assert not Permissions("a", models=frozenset({"m"})).allows("n")


# -- hosts and pages: answers --------------------------------------------------------------------


async def test_a_foreign_page_gets_403_and_no_header_that_lets_it_read(
    autojump_clock: Clock,
) -> None:
    async with running_stack(guarded()) as stack:
        for path in (CHAT, "/health", "/nowhere"):
            response = await ask(stack, "POST", path, {"Origin": "https://evil.example"}, chat())
            assert (response.status, error_of(response)["code"]) == (403, "origin_not_allowed")
            headers = text_headers(response)
            assert headers["vary"] == "Origin"
            assert len(headers["x-gateway-request-id"]) == 16
            assert not [name for name in headers if name.startswith("access-control")]
        assert stack.engines.processes == []


async def test_an_allowed_page_may_read_answers_and_errors(autojump_clock: Clock) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        for path, headers, status in (
            ("/v1/models", BEARER, 200),
            ("/v1/models/n", BEARER, 404),
            ("/v1/models", {}, 401),
        ):
            response = await ask(stack, "GET", path, {"Origin": PAGE, **headers})
            assert response.status == status
            found = text_headers(response)
            assert found["access-control-allow-origin"] == PAGE
            assert "access-control-allow-credentials" not in found
            assert "Origin" in found["vary"]


async def test_any_page_is_an_explicit_choice_and_never_with_credentials(
    autojump_clock: Clock,
) -> None:
    async with running_stack(guarded(allowed_origins=("*",))) as stack:
        response = await ask(stack, "GET", "/v1/models", {"Origin": "https://any.example"})
        found = text_headers(response)
        assert found["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in found


async def test_a_preflight_is_answered_without_a_key(autojump_clock: Clock) -> None:
    asked = "authorization, content-type, X-Stainless-OS, anthropic-version, x-api-key, cookie, x-y"
    preflight = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        response = await ask(stack, "OPTIONS", CHAT, preflight)
        found = text_headers(response)
        assert (response.status, response.content) == (204, b"")
        assert found["access-control-allow-origin"] == PAGE
        assert found["access-control-allow-headers"] == (
            "authorization, content-type, x-stainless-os, anthropic-version, x-api-key"
        )
        assert "POST" in found["access-control-allow-methods"]
        assert int(found["access-control-max-age"]) > 0
        assert "access-control-allow-private-network" not in found

        private = {**preflight, "Access-Control-Request-Private-Network": "true"}
        found = text_headers(await ask(stack, "OPTIONS", CHAT, private))
        assert found["access-control-allow-private-network"] == "true"

        foreign = {**private, "Origin": "https://evil.example"}
        response = await ask(stack, "OPTIONS", CHAT, foreign)
        assert response.status == 403
        assert not [n for n in text_headers(response) if n.startswith("access-control")]


async def test_a_page_may_send_what_programs_add_to_follow_its_requests(
    autojump_clock: Clock,
) -> None:
    asked = (
        "traceparent, tracestate, baggage, sentry-trace, b3, x-b3-traceid, x-datadog-trace-id, "
        "http-referer, x-title, x-openrouter-title, x-request-id, x-requested-with, cache-control"
    )
    preflight = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked.title(),
    }
    async with running_stack(guarded()) as stack:
        for path in (CHAT, "/v1/models", "/api/chat", "/v1/messages"):
            response = await ask(stack, "OPTIONS", path, preflight)
            assert text_headers(response)["access-control-allow-headers"] == asked
        foreign = {**preflight, "Origin": "https://evil.example"}
        assert (await ask(stack, "OPTIONS", CHAT, foreign)).status == 403


async def test_dns_rebinding_is_refused(autojump_clock: Clock) -> None:
    async with running_stack(guarded()) as stack:
        own = {"Host": "evil.example", "Origin": "http://evil.example"}  # same origin, to itself
        response = await ask(stack, "POST", CHAT, own, chat())
        assert (response.status, error_of(response)["code"]) == (403, "host_not_allowed")
        assert stack.engines.processes == []


async def raw(stack: Stack, request: bytes) -> bytes:
    client = stack.network.connect()
    await client.send_all(request)
    answer = b""
    while piece := await client.receive_some(65536):
        answer += piece
    return answer


@pytest.mark.parametrize("path", [b"/health", b"/v1/health"])
@pytest.mark.parametrize("keys", [(), KEYS])
async def test_a_load_balancer_asks_for_the_health_without_a_host(
    autojump_clock: Clock, path: bytes, keys: tuple[ApiKey, ...]
) -> None:
    async with running_stack(guarded(api_keys=keys)) as stack:
        for method in (b"GET", b"HEAD"):
            answer = await raw(stack, b"%b %b HTTP/1.0\r\n\r\n" % (method, path))
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b'{"status":"ok"}' if method == b"GET" else b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.0",
        b"GET /gateway/queue HTTP/1.0",
        b"GET /health/ HTTP/1.0",
        b"GET /health HTTP/1.1",
        b"GET /health HTTP/1.1\r\nHost:",
        b"GET /health HTTP/1.0\r\nHost:",
        b"GET /health HTTP/1.0\r\nOrigin: http://evil.example",
        b"GET /health HTTP/1.0\r\nSec-Fetch-Site: cross-site",
    ],
)
async def test_any_other_request_without_a_host_is_a_400(
    autojump_clock: Clock, head: bytes
) -> None:
    async with running_stack(guarded()) as stack:
        answer = await raw(stack, head + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code":"invalid_h' in answer


async def test_a_refused_upload_is_answered_and_not_kept(autojump_clock: Clock) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        head = b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000000\r\n\r\n"
        answer = await raw(stack, head % CHAT.encode() + b"x" * 1_000_000)
        assert answer.startswith(b"HTTP/1.1 401")


async def test_a_web_socket_is_refused_like_a_request(autojump_clock: Clock) -> None:
    handshake = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Origin: %b\r\n\r\n"
    )
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        answer = await raw(stack, handshake % b"https://evil.example")
        assert answer.startswith(b"HTTP/1.1 403")
        assert b'"code":"origin_not_allowed"' in answer
        answer = await raw(stack, handshake % PAGE.encode())
        assert answer.startswith(b"HTTP/1.1 401")
        assert b'"code":"invalid_api_key"' in answer


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer  {KEY}"}, 200),
        ({"X-Api-Key": KEY}, 200),
        ({"Authorization": "Bearer wrong", "X-Api-Key": KEY}, 200),
        ({"Authorization": f"Bearer {KEY}", "X-Api-Key": "wrong"}, 200),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-Api-Key": ""}, 401),
    ],
)
async def test_a_key_is_a_bearer_s_or_x_api_key(
    autojump_clock: Clock, headers: dict[str, str], status: int
) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        response = await ask(stack, "GET", "/v1/models", headers)
        assert response.status == status
        if status == 401:
            assert error_of(response)["code"] == "invalid_api_key"
            assert text_headers(response)["www-authenticate"] == "Bearer"
            assert KEY not in response.content.decode()


async def test_health_needs_no_key(autojump_clock: Clock) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        assert (await ask(stack, "GET", "/health", {})).status == 200
        assert (await ask(stack, "GET", "/health/", {})).status == 401


async def test_the_gateway_s_own_pages_are_an_admin_s(autojump_clock: Clock) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack:
        for path in ("/gateway/queue", "/gateway/engines", "/upstream/m/x", "/Gateway/queue"):
            response = await ask(stack, "GET", path, BEARER)
            assert (response.status, error_of(response)["code"]) == (403, "admin_only")
            response = await ask(stack, "GET", path, {"X-Api-Key": ADMIN})
            assert response.status not in (401, 403)


async def test_without_keys_everything_is_allowed_here(autojump_clock: Clock) -> None:
    async with running_stack(guarded()) as stack:
        assert (await ask(stack, "GET", "/gateway/queue", {})).status == 200


async def test_the_queue_shows_the_key_s_name_and_its_priority(autojump_clock: Clock) -> None:
    given = config(
        model("a", variant(parallel=1)),
        model("b"),
        access=AccessConfig(api_keys=KEYS, allowed_hosts=("gateway",)),
    )
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 100.0, DONE]]
        nursery.start_soon(ask, stack, "POST", CHAT, {"X-Api-Key": ADMIN}, chat("a", stream=True))
        await trio.sleep(2)
        night = {"X-Api-Key": "tg-batch", "X-Gateway-Priority": "interactive"}
        nursery.start_soon(ask, stack, "POST", CHAT, night, chat("b"))
        await trio.sleep(2)
        response = await ask(stack, "GET", "/gateway/queue", {"X-Api-Key": ADMIN})
        (row,) = json.loads(response.content)["tickets"]
        assert (row["client"], row["priority"]) == ("night", "batch")
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("how", ["answered", "abandoned"])
async def test_a_key_has_so_many_requests_at_a_time(autojump_clock: Clock, how: str) -> None:
    async with running_stack(guarded(api_keys=KEYS)) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 10.0, DONE]]
        leaving = trio.CancelScope()

        async def first() -> None:
            with leaving:
                await ask(stack, "POST", CHAT, BEARER, chat(stream=True))

        nursery.start_soon(first)
        await trio.sleep(5)
        response = await ask(stack, "GET", "/v1/models", BEARER)
        assert (response.status, error_of(response)["code"]) == (429, "too_many_requests")
        assert int(text_headers(response)["retry-after"]) > 0
        assert (await ask(stack, "GET", "/v1/models", {"X-Api-Key": ADMIN})).status == 200
        if how == "abandoned":
            leaving.cancel(reason="the client goes")
        else:
            await trio.sleep(30)
        await trio.testing.wait_all_tasks_blocked()
        assert (await ask(stack, "GET", "/v1/models", BEARER)).status == 200
        assert (await ask(stack, "GET", "/v1/models/none", BEARER)).status == 404
        assert (await ask(stack, "GET", "/v1/models", BEARER)).status == 200


async def test_what_the_guard_decided_stands_in_the_scope(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    permissions: list[Permissions] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        permissions.append(permissions_of(scope))
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = ServerConfig(access=AccessConfig(api_keys=KEYS))
    network = MemoryNetwork(nursery, RequestScopes(AccessGuard(app, app, server)))
    client = network.connect()
    head = f"GET / HTTP/1.1\r\nHost: localhost\r\nx-api-key: {KEY}\r\n\r\n"
    await client.send_all(head.encode())
    await client.receive_some(65536)
    assert permissions == [Permissions("user", Priority.INTERACTIVE, frozenset({"m"}), False)]
    nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize(("is_open", "status"), [(False, 403), (True, 200)])
async def test_without_keys_an_address_for_others_is_not_served_whoever_listens_there(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, is_open: bool, status: int
) -> None:
    """As under the `hypercorn` command, whose addresses no configuration has."""
    monkeypatch.setattr(
        "tests.support.memory_network.FakeSocket.getsockname", lambda self: ("192.168.1.20", 80)
    )
    async with running_stack(guarded(allow_unauthenticated=is_open)) as stack:
        response = await ask(stack, "GET", "/v1/models", {})
        assert response.status == status
        if not is_open:
            assert error_of(response)["code"] == "no_api_keys"


def test_the_addresses_that_it_listens_on_are_its_names() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise NotImplementedError

    server = ServerConfig(listen=(ListenAddress("Box", 1), ListenAddress("0.0.0.0", 2)))
    assert AccessGuard(app, app, server)._rules.listen == {"box"}


# -- hashed keys: real time, as a thread works -------------------------------------------------


async def test_a_hashed_key_is_checked_once_in_a_run() -> None:
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY))), ApiKey(name="b", secret=ADMIN)])
    for _ in range(3):
        found = await ring.find([KEY], "x")
        assert found is not None
        assert found.name == "a"
    assert ring.checks == 1
    found = await ring.find([ADMIN], "x")
    assert found is not None
    assert found.name == "b"
    assert ring.checks == 1  # a plain one costs no check


async def test_one_wrong_key_again_and_again_costs_one_check() -> None:
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY)))])
    for _ in range(50):
        assert await ring.find(["wrong"], "x") is None
    assert ring.checks == 1


async def test_a_flood_of_wrong_keys_is_held_off_and_those_who_are_known_do_not_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_ring, "_matching", lambda hashed, text: 0 if text == KEY else None)
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY)))])
    assert await ring.find([KEY], "x")
    refused = list[ApiError]()

    async def flood(number: int) -> None:
        try:
            assert await ring.find([f"wrong {number}"], "x") is None
        except ApiError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(flood, number)
    checked = key_ring.WRONG_PER_ADDRESS + key_ring.LATE_PER_ADDRESS
    assert ring.checks == 1 + checked
    assert len(refused) == 500 - checked
    assert {error.status for error in refused} == {429}
    assert all(dict(error.headers())["Retry-After"] for error in refused)
    assert await ring.find([KEY], "x")
    assert await ring.find(["another"], "y") is None  # from elsewhere it is still checked


@pytest.mark.slow
async def test_a_right_key_gets_in_from_an_address_with_wrong_ones() -> None:
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY)))])
    for number in range(key_ring.WRONG_PER_ADDRESS + 1):
        assert await ring.find([f"wrong {number}"], "x") is None
    async with trio.open_nursery() as nursery:  # all of its requests share one check
        for _ in range(20):
            nursery.start_soon(found_in, ring, "x")
    assert ring.checks == key_ring.WRONG_PER_ADDRESS + 2


async def found_in(ring: KeyRing, address: str) -> None:
    found = await ring.find([KEY], address)
    assert found is not None
    assert found.name == "a"


async def test_a_right_key_gets_in_while_other_addresses_send_wrong_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_ring, "_matching", lambda hashed, text: 0 if text == KEY else None)
    monkeypatch.setattr(key_ring, "LATE_EACH_S", 0.02)
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY)))])

    async def flood(number: int) -> None:
        for count in range(10**9):
            with contextlib.suppress(ApiError):
                assert await ring.find([f"wrong {number} {count}"], f"x{number % 10}") is None
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(flood, number)
        await trio.sleep(0.1)
        checks = ring.checks
        await found_in(ring, "new")
        nursery.cancel_scope.cancel(reason="the right key is in")
    # Behind those that wait; while they do, the others are allowed a few at once.
    assert ring.checks - checks < 2 * 10 * key_ring.LATE_PER_ADDRESS
    assert not ring._late_waiting
    assert not ring._under_way


@pytest.mark.slow
async def test_a_cancelled_check_leaves_nothing_behind() -> None:
    ring = KeyRing([ApiKey(name="a", secret=str(hash_of(KEY)))])
    for number in range(key_ring.WRONG_PER_ADDRESS + 1):
        await ring.find([f"wrong {number}"], "x")
    with trio.move_on_after(0.05):
        await ring.find(["another wrong one"], "x")
    assert not ring._late_waiting
    assert not ring._under_way
    await found_in(ring, "x")


def test_wrong_keys_are_forgotten_after_a_while_and_their_memory_is_bounded() -> None:
    wrong = WrongKeys()
    for _ in range(key_ring.WRONG_PER_ADDRESS):
        assert wrong.wait_s("x", 0.0) == 0
        wrong.note("x", 0.0)
    assert wrong.wait_s("x", 0.0) == key_ring.WRONG_EACH_S
    assert wrong.wait_s("y", 0.0) == 0
    assert wrong.wait_s("x", key_ring.WRONG_EACH_S) == 0
    for number in range(5000):
        wrong.note(str(number), 1.0)
    assert len(wrong) == key_ring.REMEMBERED_MAX
    assert wrong.wait_s("new", 1.0) > 0  # too many in all
    assert wrong.wait_s("new", 10_000.0) == 0
