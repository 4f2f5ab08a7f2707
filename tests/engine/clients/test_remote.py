"""RemoteEngine over real sockets: failover at every point, TLS, keys, counts, and the gateway."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.support.asking import CHAT, chat, error_of
from tests.support.fakes import FakeEngines
from tests.support.openai_site import DONE, Breaks, Site, running
from tests.support.schema_values import config, model, variant
from tests.support.sockets import OK, read_request, serving, whole_body
from tests.support.stack import Stack
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, Secret
from trio_gateway.engine.clients.remote import RemoteEngine
from trio_gateway.engine.clients.remote_site import RemoteSite
from trio_gateway.engine.errors import EngineDisconnected, EngineUnreachable
from trio_gateway.engine.http.socket import HandshakeRefused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.sites.circuit import FIRST_PAUSE_S
from trio_gateway.server.relay import engine_stream

KEY = "sk-of-the-gateway"


class World(FakeEngines):
    """Real clients, and no process."""

    def manager(self, given: Any) -> EngineManager:
        return EngineManager(given, launch=self.launch)


@asynccontextmanager
async def gateway(*urls: str, **options: Any) -> AsyncIterator[Stack]:
    """A gateway with one model `m`, which is at these URLs."""
    timeouts = EngineTimeouts(health_check_s=2.0)
    known = EngineOptions(urls=urls, **{"served_name": "theirs", **options})
    elsewhere = variant(
        4096, binary="", options=known, timeouts=timeouts, parallel=64, memory_bytes=0
    )
    remote = model("m", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
    given = config(remote, pools={"remote": 1000})
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, World(), given)
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def engine(*urls: str, **options: Any) -> AsyncIterator[RemoteEngine]:
    client = RemoteEngine(urls[0], EngineOptions(urls=urls, **options))
    yield client
    await client.aclose()


async def post(client: RemoteEngine, body: bytes = b'{"model":"m"}') -> tuple[int, bytes]:
    async with client.forward_request("POST", CHAT, [], body) as exchange:
        return exchange.status, await whole_body(exchange)


def works(client: RemoteEngine) -> list[bool | None]:
    return [client.sites.state(site).works for site in client.sites.all]


def dead_url() -> str:
    return "http://127.0.0.1:1"


@asynccontextmanager
async def two_sites() -> AsyncIterator[tuple[Site, Site]]:
    async with running(Site("a")) as a, running(Site("b")) as b:
        yield a, b


# -- failover ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaks", "streamed"),
    [
        (None, False),
        (None, True),
        (Breaks.BEFORE_HEAD, False),
        (Breaks.BEFORE_HEAD, True),
        (Breaks.AFTER_HEAD, True),
        (Breaks.IN_THE_MIDDLE, False),
    ],
)
async def test_a_site_that_breaks_before_the_first_byte_costs_a_try_and_not_the_answer(
    breaks: Breaks | None, streamed: bool
) -> None:
    """None: nothing listens there any more."""
    async with two_sites() as (a, b):
        a.breaks = breaks
        async with gateway(a.url if breaks else dead_url(), b.url) as stack:
            answer = await stack.post(CHAT, chat("m", stream=streamed))
        assert answer.status == 200
        assert b'"b"' in answer.content
        assert (DONE in answer.content) == streamed
        assert a.asked.count(CHAT) == (breaks is not None)


@pytest.mark.parametrize("status", [200, 400])
async def test_a_site_that_breaks_in_json_in_chunks_costs_a_try_and_not_the_answer(
    status: int,
) -> None:
    async with two_sites() as (a, b):
        a.chunked = b.chunked = True
        a.breaks, a.status = Breaks.IN_THE_MIDDLE, status
        async with gateway(a.url, b.url) as stack:
            answer = await stack.post(CHAT, chat("m"))
        assert a.asked.count(CHAT) == 1
        assert json.loads(answer.content) == {"from": "b", "model": "m"}


async def test_events_with_a_known_length_are_not_waited_for() -> None:
    hold = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await read_request(stream)
        head = b"Content-Type: text/event-stream\r\nContent-Length: 10\r\n\r\n"
        await stream.send_all(OK + head + b"data:")
        await hold.wait()
        await stream.send_all(b" 1\n\n\n")

    async with serving(slow) as port, engine(f"http://127.0.0.1:{port}") as client:
        with trio.fail_after(5):
            async with client.forward_request("POST", CHAT, [], b"{}") as exchange:
                assert await exchange.receive() == b"data:"
                hold.set()
                assert await whole_body(exchange) == b" 1\n\n\n"


async def test_a_site_that_breaks_after_the_first_byte_ends_the_stream_with_an_error() -> None:
    """The client has the first byte: nobody else's answer may follow that."""
    async with two_sites() as (a, b):
        a.breaks = Breaks.AFTER_FIRST_BYTE
        async with gateway(a.url, b.url) as stack:
            answer = await stack.post(CHAT, chat("m", stream=True))
        assert b'"content":"a"' in answer.content
        assert b'"code":"engine_failed"' in answer.content.splitlines()[-2]
        assert DONE not in answer.content
        assert CHAT not in b.asked


@pytest.mark.parametrize("breaks", [Breaks.BEFORE_HEAD, Breaks.AFTER_HEAD], ids=str)
async def test_any_number_of_sites_may_break(breaks: Breaks) -> None:
    async with two_sites() as (a, b), running(Site("c")) as c:
        a.breaks = b.breaks = breaks
        async with engine(a.url, b.url, c.url) as client:
            status, body = await post(client, b'{"model":"m","stream":true}')
        assert (status, b'"c"' in body) == (200, True)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_answer_that_another_site_may_do_better_is_given_to_another(status: int) -> None:
    async with two_sites() as (a, b):
        a.status = status
        async with engine(a.url, b.url) as client:
            assert (await post(client))[0] == 200
        async with engine(a.url) as client:
            assert (await post(client))[0] == status  # passed on, as there is no other
        b.status = 500
        async with engine(a.url, b.url) as client:
            assert (await post(client))[0] == 500
        b.status = 503
        async with engine(a.url, dead_url(), b.url) as client:
            assert (await post(client))[0] == status  # the first that was an answer


async def test_an_error_of_the_request_itself_is_passed_on_at_once() -> None:
    async with two_sites() as (a, b):
        a.status = 400
        async with engine(a.url, b.url) as client:
            status, body = await post(client)
        assert (status, b.asked) == (400, [])
        assert b"a is busy" in body


async def test_after_a_failure_the_other_site_comes_first_until_a_check_finds_it_well(
    mock_clock: MockClock,
) -> None:
    async with two_sites() as (a, b):
        a.breaks = Breaks.BEFORE_HEAD
        async with engine(a.url, b.url) as client:
            await post(client)
            a.breaks = None
            mock_clock.jump(FIRST_PAUSE_S)
            assert b'"b"' in (await post(client))[1]
            assert a.asked == [CHAT]
            await client.check_health(2.0)
            assert b'"a"' in (await post(client))[1]


async def test_an_answer_that_does_not_begin_in_time_is_given_up() -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with serving(hang) as port, running(Site("b")) as b:
        # The other site has to answer within that, too.
        async with engine(f"http://127.0.0.1:{port}", b.url, first_byte_timeout_s=1.0) as client:
            assert b'"b"' in (await post(client))[1]
        async with engine(f"http://127.0.0.1:{port}", first_byte_timeout_s=0.05) as client:
            with pytest.raises(EngineUnreachable, match=r"no answer within 0\.05 s"):
                await post(client)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_host_that_is_gone_is_noticed_by_the_system(
    authority: Authority, scheme: str
) -> None:
    async with running(Site("a"), authority.server if scheme == "https" else None) as a:
        trusting = ssl.create_default_context(cafile=authority.file)
        site = RemoteSite(f"{scheme}://localhost:{a.port}", trusting, 2.0, ["/health"])
        transport = await site.connect()
        with contextlib.closing(transport):
            sock = transport.socket
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            for name, value in (("KEEPIDLE", 30), ("KEEPINTVL", 10), ("KEEPCNT", 3)):
                if (option := getattr(socket, f"TCP_{name}", None)) is not None:
                    assert sock.getsockopt(socket.IPPROTO_TCP, option) == value


async def test_with_no_site_left_the_error_names_them_all_and_it_works_again_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_stream, "ENGINE_NEWS_S", 60.0)
    site = Site("a")
    async with running(site):
        url = site.url
    async with gateway(url, dead_url()) as stack:
        for _ in range(3):
            begun = trio.current_time()
            answer = await stack.post(CHAT, chat("m"))
            error = error_of(answer)
            assert (answer.status, error["code"]) == (502, "engine_failed")
            assert url in error["message"]
            assert dead_url() in error["message"]
            assert trio.current_time() - begun < 10.0  # nobody waits for news of a process
        (row,) = stack.manager.overview.engines()
        assert (row.state, row.pid, row.port, row.memory_bytes) == ("ready", None, None, 0)
        listeners = await trio.open_tcp_listeners(site.port, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, site, listeners)
            answer = await stack.post(CHAT, chat("m"))
            nursery.cancel_scope.cancel(reason="the test is over")
        assert answer.status == 200


async def test_aborted_requests_are_not_given_to_other_sites() -> None:
    async with two_sites() as (a, b), engine(a.url, b.url) as client:
        client.abort_all(EngineDisconnected("stopped"))
        with pytest.raises(EngineDisconnected, match="stopped"):
            await post(client)
        assert works(client) == [None, None]


# -- health -----------------------------------------------------------------------------------


async def test_health_is_looked_at_where_it_is_and_not_too_often(mock_clock: MockClock) -> None:
    async with two_sites() as (a, b):
        a.answers["/health"] = (404, {})
        b.answers["/health"] = (503, {})
        async with engine(a.url, b.url, health_interval_s=1000.0) as client:
            # The first look is over once one works; the second is complete.
            await client.check_health(2.0)
            await client.check_health(2.0)
            assert works(client)[0] is True
            assert a.asked == ["/health", "/v1/models"]
            mock_clock.jump(1000.0)
            assert (await client.check_health(2.0)).ok
            assert works(client) == [True, False]
            assert a.asked == ["/health", "/v1/models", "/v1/models"]


async def test_a_health_path_of_ones_own_is_asked_alone() -> None:
    async with running(Site("a", {"/ping": (200, {})})) as a:
        async with engine(a.url, health_path="/ping") as client:
            await client.check_health(2.0)
        assert a.asked == ["/ping"]


# -- what is sent, and what comes back --------------------------------------------------------


async def test_the_key_goes_there_and_the_clients_own_does_not() -> None:
    async with running(Site("a")) as a, engine(a.url, api_key=Secret(KEY)) as client:
        given = [(b"Authorization", b"Bearer of-the-client"), (b"Accept", b"*/*")]
        async with client.forward_request("POST", CHAT, given, b'{"model":"m"}') as exchange:
            await whole_body(exchange)
    lines = a.heads[-1].split(b"\r\n")
    assert [x for x in lines if x.startswith(b"Authorization")] == [
        b"Authorization: Bearer " + KEY.encode()
    ]
    assert [x for x in lines if x.startswith(b"Host")] == [f"Host: 127.0.0.1:{a.port}".encode()]


async def test_no_key_is_in_a_log_or_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(Site("a")) as a:
        a.status = 401
        async with gateway(a.url, api_key=Secret(KEY)) as stack:
            answer = await stack.post(CHAT, chat("m"))
        assert answer.status == 502
        assert "check `api_key`" in error_of(answer)["message"]
        assert b"is busy" not in answer.content  # such a message may quote the key
        async with gateway(a.url) as stack:
            assert "set `api_key`" in error_of(await stack.post(CHAT, chat("m")))["message"]
    assert KEY not in caplog.text
    assert KEY not in repr(EngineOptions(api_key=Secret(KEY)))


@pytest.mark.parametrize("status", [401, 403])
async def test_where_one_url_refuses_the_key_another_may_take_it(status: int) -> None:
    async with running(Site("a")) as a, running(Site("b")) as b:
        a.status = status
        async with gateway(a.url, b.url, api_key=Secret(KEY)) as stack:
            assert (await stack.post(CHAT, chat("m"))).status == 200
            b.status = status
            a.asked.clear()
            answer = await stack.post(CHAT, chat("m"))
        assert (answer.status, error_of(answer)["code"]) == (502, "engine_key_refused")
        for site in (a, b):
            refusal = f"{site.url}: it refuses the gateway's key (HTTP {status}); check `api_key`"
            assert refusal in error_of(answer)["message"]
        assert a.asked.count(CHAT) == 1  # it is not tried once more


async def test_a_forbidden_request_is_told_with_what_the_server_says() -> None:
    async with running(Site("a")) as a:
        a.status = 403
        async with gateway(a.url, api_key=Secret(KEY)) as stack:
            answer = await stack.post(CHAT, chat("m"))
    assert (answer.status, error_of(answer)["code"]) == (502, "engine_key_refused")
    assert error_of(answer)["message"] == (
        "the engine m:4096 forbids the request (HTTP 403); if that is for its key: it does not "
        "take the gateway's; check `api_key` of the model or its variant. It says: a is busy"
    )


async def test_a_server_that_asks_for_a_key_at_the_start_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = (401, {"error": "no"})
    site = Site("a", {"/health": refused, "/v1/models": refused})
    async with running(site) as a, gateway(a.url) as stack:
        assert (await stack.post(CHAT, chat("m"))).status == 200
    assert "the engine m:4096 asks for a key (HTTP 401); set `api_key`" in caplog.text


async def test_a_websocket_goes_to_the_url_that_takes_the_key() -> None:
    refused = {"/v1/realtime": (401, {"error": "no"})}
    async with running(Site("a", refused)) as a, running(Site("b")) as b:
        for urls, status in (((a.url, b.url), 404), ((a.url,), 401), ((b.url, a.url), 404)):
            async with engine(*urls, api_key=Secret(KEY)) as client:
                with pytest.raises(HandshakeRefused) as caught:
                    async with client.open_socket("/v1/realtime", [], [], 1000):
                        raise AssertionError
                assert caught.value.status == status


def test_a_key_that_goes_unencrypted_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    urls = ("http://gpu.example.com/v1", "http://127.0.0.1:1", "http://localhost:1")
    RemoteEngine(urls[0], EngineOptions(urls=urls, api_key=Secret(KEY)))
    (record,) = caplog.records
    assert "http://gpu.example.com/v1" in record.message


async def test_the_model_is_called_as_it_is_called_there() -> None:
    async with running(Site("a")) as a:
        async with gateway(a.url, served_name="org/model") as stack:
            answer = await stack.post(CHAT, chat("m"))
        assert json.loads(a.bodies[CHAT][0])["model"] == "org/model"
        names = [name.lower() for name, _ in answer.headers]
        assert b"set-cookie" not in names
        assert names.count(b"x-gateway-variant") == 1  # ours


STEERING = (
    "location", "refresh", "set-cookie", "content-location", "link", "alt-svc", "via",
    "x-accel-redirect", "x-accel-buffering", "x-accel-expires", "x-sendfile", "clear-site-data",
    "service-worker-allowed", "strict-transport-security", "report-to", "nel",
    "reporting-endpoints", "access-control-allow-origin", "www-authenticate", "cache-control",
    "content-security-policy", "content-disposition", "sourcemap", "x-gateway-variant", "server",
    "connection", "upgrade", "trailer", "proxy-authenticate", "surrogate-control", "x-anything",
)  # fmt: skip
NEEDED = (
    "content-type", "content-length", "content-encoding", "retry-after", "retry-after-ms",
    "x-should-retry", "x-request-id", "request-id", "openai-processing-ms", "openai-version",
    "x-ratelimit-remaining-tokens", "anthropic-ratelimit-requests-limit", "ratelimit",
)  # fmt: skip


def test_of_another_server_s_headers_only_what_clients_need_is_passed_on() -> None:
    headers = [(name.encode(), b"x") for name in (*STEERING, *NEEDED)]
    passed = RemoteEngine("http://127.0.0.1:1").transform_response(headers)
    assert [name.decode() for name, _ in passed] == [*NEEDED]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_server_that_sends_clients_elsewhere_does_not_work(status: int) -> None:
    async with running(Site("a")) as a, running(Site("b")) as b:
        a.status = status
        async with gateway(a.url) as stack:
            answer = await stack.post(CHAT, chat("m"))
            assert answer.status == 502
            assert f"HTTP {status}" in error_of(answer)["message"]
        async with gateway(a.url, b.url) as stack:
            assert (await stack.post(CHAT, chat("m"))).status == 200


@pytest.mark.parametrize(
    ("url", "api", "root"),
    [
        ("https://h", "/v1/x", "/y"),
        ("https://h/v1", "/v1/x", "/y"),
        ("https://h/openai/v1", "/openai/v1/x", "/openai/y"),
        ("https://h/v1beta/openai", "/v1beta/openai/x", "/v1beta/openai/y"),
    ],
)
def test_a_base_url_is_what_openais_clients_take(url: str, api: str, root: str) -> None:
    site = RemoteSite(url, None, 1.0, ["/health"])
    assert (site.target("/v1/x"), site.target("/y"), site.port) == (api, root, 443)


# -- counts and facts -------------------------------------------------------------------------


async def test_another_gateway_says_its_context_and_counts() -> None:
    counts = {"/v1/chat/completions/input_tokens": (200, {"input_tokens": 77})}
    models = [{"id": "other", "context_length": 5}, {"id": "m", "context_length": 2048}]
    async with running(Site("a", {"/v1/models": (200, {"data": models}), **counts})) as a:
        async with engine(a.url, served_name="m") as client:
            assert (await client.read_facts(2.0)).context == 2048
            body = chat("alias")
            assert await client.count_tokens("chat/completions", body, 2.0) == 77
        (asked,) = a.bodies["/v1/chat/completions/input_tokens"]
        assert json.loads(asked)["model"] == "m"


# -- TLS --------------------------------------------------------------------------------------


class Authority:
    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("breaks", [None, Breaks.AFTER_FIRST_BYTE, Breaks.BEFORE_HEAD], ids=str)
async def test_https_with_a_ca_of_ones_own(authority: Authority, breaks: Breaks | None) -> None:
    async with running(Site("a"), authority.server) as a:
        a.breaks = breaks
        async with gateway(f"https://localhost:{a.port}", ca_file=authority.file) as stack:
            answer = await stack.post(CHAT, chat("m", stream=True))
        if breaks is None:
            assert (answer.status, DONE in answer.content) == (200, True)
        elif breaks is Breaks.BEFORE_HEAD:
            assert answer.status == 502
        else:
            assert b"engine_failed" in answer.content
            assert DONE not in answer.content


async def test_an_https_answer_without_a_length_that_just_ends_is_not_complete(
    authority: Authority,
) -> None:
    async def cut(stream: trio.SocketStream) -> None:
        secure: Any = trio.SSLStream(stream, authority.server, server_side=True)
        await read_request(secure)
        await secure.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")

    async with serving(cut) as port:
        url = f"https://localhost:{port}"
        async with engine(url, ca_file=authority.file) as client:
            with pytest.raises(EngineDisconnected):
                await post(client)


async def test_a_certificate_that_nobody_vouches_for_is_refused_unless_told_otherwise(
    authority: Authority,
) -> None:
    async with running(Site("a"), authority.server) as a:
        url = f"https://127.0.0.1:{a.port}"
        async with engine(url) as client:
            with pytest.raises(EngineUnreachable, match=r"certificate is not valid: .*ca_file"):
                await post(client)
        assert a.heads == []  # no key was sent to it, either
        async with engine(url, verify_tls=False) as client:
            assert (await post(client))[0] == 200


async def test_plain_http_at_an_https_url_and_an_unknown_name_are_told() -> None:
    async def talk_plainly(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serving(talk_plainly) as port:
        for url, what in [
            (f"https://127.0.0.1:{port}", "TLS: "),
            ("http://gpu.invalid:1", "gpu.invalid is unknown"),
        ]:
            async with engine(url) as client:
                with pytest.raises(EngineUnreachable, match=what):
                    await post(client)


async def test_a_ca_file_that_cannot_be_used_fails_the_start_and_says_so(tmp_path: Path) -> None:
    async with gateway("https://localhost:1", ca_file=tmp_path / "none.pem") as stack:
        answer = await stack.post(CHAT, chat("m"))
        assert answer.status == 502
        assert "none.pem cannot be used" in error_of(answer)["message"]


async def test_a_cancelled_https_request_is_closed(authority: Authority) -> None:
    asked, closed = trio.Event(), trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        secure: Any = trio.SSLStream(stream, authority.server, server_side=True)
        try:
            while await secure.receive_some():
                asked.set()
        except trio.BrokenResourceError:
            pass
        closed.set()

    async with (
        serving(slow) as port,
        engine(f"https://localhost:{port}", ca_file=authority.file) as client,
    ):
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post, client)
                await asked.wait()
                nursery.cancel_scope.cancel(reason="the client does not want it any more")
            await closed.wait()
        assert not len(client.connections)


# -- the gateway's own affairs ----------------------------------------------------------------


async def test_many_remote_engines_run_side_by_side_and_stop_when_idle() -> None:
    async with running(Site("a")) as a:
        options = EngineOptions(urls=(a.url,), served_name="x")
        timeouts = EngineTimeouts(idle_s=2.0)  # the first has to be there until all have answered
        elsewhere = variant(
            4096, binary="", options=options, timeouts=timeouts, parallel=64, memory_bytes=0
        )
        models = [
            model(f"m{i}", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
            for i in range(5)
        ]
        async with trio.open_nursery() as nursery:
            stack = Stack(nursery, World(), config(*models, pools={"remote": 1000}))
            await nursery.start(stack.gateway.run)
            answers: list[httpcore.Response] = []

            async def ask(name: str) -> None:
                answers.append(await stack.post(CHAT, chat(name)))

            async with stack.http:
                async with trio.open_nursery() as askers:
                    for each in models:
                        askers.start_soon(ask, each.name)
                assert [x.status for x in answers] == [200] * 5
                assert len(stack.manager.engines) == 5
                with trio.fail_after(20):
                    while stack.manager.engines:
                        await trio.testing.wait_all_tasks_blocked(0.02)
            stack.gateway.begin_shutdown()
            await stack.manager.stopped.wait()
            nursery.cancel_scope.cancel(reason="the test is over")


TRACED = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
          "tracestate": "congo=1", "baggage": "user=ann"}  # fmt: skip


async def test_it_is_told_of_the_trace_but_not_of_the_baggage() -> None:
    """Wherever it is: at a loopback address there may be a proxy to anywhere."""
    async with running(Site()) as site, gateway(site.url) as stack:
        await stack.post(CHAT, chat(), TRACED)
    head = site.heads[-1].lower()
    assert f"traceparent: {TRACED['traceparent']}".encode() in head
    assert b"tracestate: congo=1" in head
    assert b"baggage" not in head
