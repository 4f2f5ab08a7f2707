"""WebSockets through a gateway to an engine on a real socket, both ways and to every end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
    wrap_client_stream,
)

from tests.support.fakes import FakeKind
from tests.support.real_sockets import authority, served, tiny_window
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey, ConnectionLimits
from trio_gateway.engine.errors import EngineUnreachable
from trio_gateway.engine.http.opener import AddressOpener
from trio_gateway.engine.http.transport import Transport
from trio_gateway.server.api.trace_context import Sampler
from trio_gateway.server.http.websocket_session import _Session
from trio_gateway.server.records.request_record import Outcome
from trio_gateway.server.relay import model_finder
from trio_gateway.server.relay import websocket as websocket_relay
from trio_gateway.server.traces.spans import spans_of

PATH = "/v1/realtime?model=m"
Handler = Callable[[WebSocketRequest], Awaitable[None]]


async def echo(request: WebSocketRequest) -> None:
    socket = await request.accept()
    while True:
        await socket.send_message(await socket.get_message())


really_connect = AddressOpener.connect


def connect_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine is at this port, whatever its address."""

    async def connect(_: AddressOpener) -> Transport:
        return await really_connect(AddressOpener("127.0.0.1", port))

    monkeypatch.setattr(AddressOpener, "connect", connect)


@asynccontextmanager
async def serving(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, **server: Any
) -> AsyncIterator[Stack]:
    """A gateway with the model m, whose engine has a WebSocket, and n, whose engine has none."""

    async def serve(request: WebSocketRequest) -> None:
        try:
            await handler(request)
        except ConnectionClosed as closed:
            ends.append(said_in(closed))

    ends: list[tuple[int, str]] = []
    async with trio.open_nursery() as nursery:
        start = partial(
            serve_websocket, serve, "127.0.0.1", 0, ssl_context=None, max_message_size=2**25
        )
        listening = await nursery.start(start)
        port = listening.port

        connect_to(port, monkeypatch)
        async with running_stack(config(model("m"), model("n"), **server)) as stack:
            stack.engines.load_s = stack.engines.stop_s = 0.0
            stack.engines.kind.endpoints |= {"realtime"}
            stack.ends = ends  # type: ignore[attr-defined]
            yield stack
        nursery.cancel_scope.cancel(reason="the test is over")


def said_in(closed: ConnectionClosed) -> tuple[int, str]:
    assert closed.reason is not None
    return closed.reason.code, closed.reason.reason or ""


def ends_of(stack: Stack) -> list[tuple[int, str]]:
    """How the engine saw its connections end."""
    return stack.ends  # type: ignore[attr-defined, no-any-return]


@asynccontextmanager
async def connected(
    stack: Stack,
    path: str = PATH,
    protocols: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[WebSocketConnection]:
    failure: Exception | None = None
    extra = [(n.encode(), v.encode()) for n, v in (headers or {}).items()]
    async with trio.open_nursery() as nursery:
        stream = stack.network.connect()
        try:
            with trio.fail_after(10):
                socket = await wrap_client_stream(
                    nursery, stream, "gateway", path, subprotocols=protocols,
                    extra_headers=extra, max_message_size=2**25,
                )  # fmt: skip
            yield socket
        except Exception as error:  # noqa: BLE001 - it is raised below, not in a group
            failure = error
        finally:
            await stream.aclose()
            nursery.cancel_scope.cancel(reason="the test is over")
    if failure is not None:
        raise failure


async def refusal_of(
    stack: Stack, path: str = PATH, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and code of the answer to a handshake."""
    with trio.fail_after(10):
        try:
            async with connected(stack, path, headers=headers):
                raise AssertionError("it was accepted")
        except* ConnectionRejected as group:
            rejected = group.exceptions[0]
    assert isinstance(rejected, ConnectionRejected)
    error = json.loads(rejected.body or b"")["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return rejected.status_code, error["code"]


async def close_of(socket: WebSocketConnection) -> tuple[int, str]:
    """Code and reason with which the gateway closes; the messages before that are skipped."""
    with trio.fail_after(10):
        while True:
            try:
                await socket.get_message()
            except ConnectionClosed as closed:
                return said_in(closed)


async def until(asked: Callable[[], Awaitable[Any]], wanted: object) -> None:
    """Polled, as what is asked is known to the gateway only."""
    with trio.fail_after(10):
        while await asked() != wanted:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def standing_still(grown: Callable[[], int], least: int, most: int) -> int:
    """What a count comes to that has not grown for half a second. It has to reach `least`, however
    long that takes on a busy machine; more than `most` is a failure at once."""
    with trio.fail_after(30):
        before = -1
        while (now := grown()) < least or now > before:
            assert now <= most
            before = now
            await trio.sleep(0.5)
    return now


async def until_free(stack: Stack) -> None:
    """The lease was given back."""

    async def leases() -> int:
        engines = json.loads((await stack.get("/gateway/engines")).content)["engines"]
        return sum(e["leases"] for e in engines)

    await until(leases, 0)


async def test_messages_go_both_ways_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack, connected(stack) as socket:
        for message in ("text", b"bytes", "", b"", "ü" * 100_000, b"\x00" * 10_000_000):
            await socket.send_message(message)
            with trio.fail_after(10):
                assert await socket.get_message() == message


async def test_both_paths_lead_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def note(request: WebSocketRequest) -> None:
        seen.append(request.path)
        await echo(request)

    async with serving(note, monkeypatch) as stack:
        async with connected(stack, "/realtime?model=m&intent=transcription"):
            pass
        stack.engines.client_type.served_name = "own/name"
        async with connected(stack, PATH):
            pass
        del stack.engines.client_type.served_name
    assert seen == [
        "/v1/realtime?model=m&intent=transcription",
        "/v1/realtime?model=own%2Fname",
    ]


async def test_the_engine_gets_the_protocols_and_no_key_but_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[WebSocketRequest] = []

    async def choose(request: WebSocketRequest) -> None:
        seen.append(request)
        await request.accept(subprotocol="openai-beta.realtime-v1")

    key = "openai-insecure-api-key.sk-secret"
    protocols = ["realtime", key, "openai-beta.realtime-v1"]
    async with serving(choose, monkeypatch) as stack:
        given = {"OpenAI-Beta": "realtime=v1", "Cookie": "c=1", "X-Api-Key": "sk-secret"}
        async with connected(stack, protocols=protocols, headers=given) as socket:
            assert socket.subprotocol == "openai-beta.realtime-v1"
            (engine,) = stack.manager.engines.values()
    assert seen[0].proposed_subprotocols == ("realtime", "openai-beta.realtime-v1")
    assert "secret" not in repr(seen[0].headers) + seen[0].path
    assert (b"openai-beta", b"realtime=v1") in seen[0].headers
    headers = dict(seen[0].headers)
    assert b"cookie" not in headers
    assert engine.launch.key.secret is not None
    assert headers[b"authorization"].decode() == f"Bearer {engine.launch.key.secret.reveal()}"


async def test_the_engine_is_told_of_the_trace_and_the_client_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = list[WebSocketRequest]()

    async def accept(request: WebSocketRequest) -> None:
        seen.append(request)
        await request.accept(extra_headers=[(b"traceparent", b"00-its-own-01")])

    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {"traceparent": parent, "tracestate": "congo=1", "baggage": "user=ann"}
    async with (
        serving(accept, monkeypatch) as stack,
        connected(stack, headers=sent) as socket,
    ):
        answered = dict(socket.handshake_headers)
    assert answered[b"traceparent"].decode() == parent
    got = dict(seen[0].headers)
    assert {name: got[name.encode()].decode() for name in sent} == sent


async def test_a_websockets_spans_last_as_long_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        monkeypatch.setattr(stack.gateway.book, "_sampler", Sampler(1.0))
        async with connected(stack) as socket:
            await socket.send_message("Hi")
            await socket.get_message()
            await socket.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        request, *_, engine = spans_of(stack.gateway.book.recent[-1])
    assert request.name == "GET /v1/realtime"
    assert (engine.name, engine.parent, engine.error) == ("engine", request.id, None)
    assert request.begin_ns < engine.begin_ns < engine.end_ns == request.end_ns


async def test_an_engine_that_chooses_no_protocol_is_helped_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(echo, monkeypatch) as stack:
        async with connected(stack, protocols=["realtime", "x"]) as socket:
            assert socket.subprotocol == "realtime"
        async with connected(stack, protocols=["x"]) as socket:
            assert socket.subprotocol is None


async def test_an_address_that_names_two_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        for query in ("model=m&model=n", "model=n&model=m", "model=m&model=m", "model=m&%6dodel=n"):
            assert await refusal_of(stack, f"/v1/realtime?{query}") == (400, "duplicate_model")


LIMITED = ApiKey(name="k", secret="tg-limited-0123456789", models=frozenset({"m"}))


async def test_a_limited_key_cannot_choose_another_model_of_a_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=(LIMITED,))
    key = {"Authorization": f"Bearer {LIMITED.secret}"}
    monkeypatch.setattr(
        websocket_relay, "may_choose", lambda model, permissions: permissions.models is not None
    )
    monkeypatch.setattr(model_finder, "may_choose", lambda *_: True)
    async with serving(echo, monkeypatch, access=access) as stack:
        refused = await refusal_of(stack, f"{PATH}&models=other", key)
        assert refused == (403, "field_not_allowed")
        for message in (
            {"type": "session.update", "session": {"model": "other"}},
            {"type": "session.update", "session": {"input_audio_transcription": {"model": "x"}}},
            {"type": "response.create", "response": {"tools": [{"model": "other"}]}},
        ):
            async with connected(stack, headers=key) as socket:
                await socket.send_message(harmless := '{"type": "input_audio_buffer.commit"}')
                assert await socket.get_message() == harmless
                await socket.send_message(json.dumps(message))
                event = json.loads(await socket.get_message())
                assert event["error"]["code"] == "field_not_allowed"
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.get_message()
                assert said_in(closed.value)[0] == 1008


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b'{"session": {"model": "other"}, "x": NaN}', "invalid_json"),
        ('{"session": {"model": "other"}}'.encode("utf-16"), "invalid_json"),
        (json.dumps({"x": [1] * 10_000}), "body_too_complex"),
        (json.dumps({"x": [1] * 10_000}).encode(), "body_too_complex"),
    ],
)
async def test_nor_in_a_message_that_cannot_be_looked_through(
    monkeypatch: pytest.MonkeyPatch, message: str | bytes, code: str
) -> None:
    """The site may take bytes for JSON, and be less strict about it."""
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=(LIMITED,))
    monkeypatch.setattr(websocket_relay, "may_choose", lambda *_: True)
    async with (
        serving(echo, monkeypatch, access=access) as stack,
        connected(stack, headers={"Authorization": f"Bearer {LIMITED.secret}"}) as socket,
    ):
        await socket.send_message(message)
        assert json.loads(await socket.get_message())["error"]["code"] == code


def test_a_key_among_the_protocols_becomes_a_header() -> None:
    scope = {
        "headers": [(b"host", b"g")],
        "subprotocols": ["realtime", "openai-insecure-api-key.k"],
    }
    found = websocket_relay.with_key_as_header(scope)["headers"]
    assert found == [(b"host", b"g"), (b"authorization", b"Bearer k")]
    scope["headers"] = [(b"authorization", b"Bearer other")]
    assert websocket_relay.with_key_as_header(scope) is scope


async def test_the_answer_says_how_it_came_by_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack, connected(stack) as socket:
        headers = dict(socket.handshake_headers)
        assert headers[b"x-gateway-decision"] == b"started"
        assert headers[b"x-gateway-variant"] == b"4096"
        assert headers[b"x-gateway-request-id"]


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/realtime?model=nope", 404, "model_not_found"),
        ("/v1/realtime", 404, "model_not_found"),
        ("/v1/chat/completions?model=m", 404, "unknown_path"),
    ],
)
async def test_what_cannot_be_is_refused_before_it_is_accepted(
    monkeypatch: pytest.MonkeyPatch, path: str, status: int, code: str
) -> None:
    async with serving(echo, monkeypatch) as stack:
        assert await refusal_of(stack, path) == (status, code)
        assert not stack.engines.processes
        (record,) = stack.gateway.book.recent
        assert record.asked == ("nope" if "nope" in path else None)


async def test_engines_without_a_websocket_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        stack.engines.kind.endpoints = FakeKind.endpoints
        assert await refusal_of(stack) == (400, "endpoint_not_supported")


async def test_a_wrong_priority_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        got = await refusal_of(stack, headers={"X-Gateway-Priority": "now!"})
        assert got == (400, "invalid_priority")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, (502, "engine_key_refused")),
        (403, (502, "engine_key_refused")),
        (404, (404, "refused")),
        (500, (502, "engine_failed")),
    ],
)
async def test_an_engine_s_refusal_is_the_client_s(
    monkeypatch: pytest.MonkeyPatch, status: int, expected: tuple[int, str]
) -> None:
    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(status, body=b'{"error":{"message":"not you"}}')

    async with serving(refuse, monkeypatch) as stack:
        assert await refusal_of(stack) == expected
        await until_free(stack)


async def test_an_engine_that_is_not_there_is_a_502(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        connect_to(1, monkeypatch)
        assert await refusal_of(stack) == (502, "engine_failed")


async def test_an_engine_that_ends_before_the_handshake_gets_a_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(echo, monkeypatch) as stack:
        connect = AddressOpener.connect

        async def end_first(_: AddressOpener) -> Transport:
            monkeypatch.setattr(AddressOpener, "connect", connect)
            stack.engines.alive[0].exit()
            raise EngineUnreachable("nothing answers there")

        monkeypatch.setattr(AddressOpener, "connect", end_first)
        async with connected(stack) as socket:
            await socket.send_message("hello")
            assert await socket.get_message() == "hello"
        await until_free(stack)


async def test_a_gateway_that_stops_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        stack.gateway.begin_shutdown()
        assert await refusal_of(stack) == (503, "shutting_down")


async def test_a_plain_get_is_told_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        response = await stack.get(PATH)
        assert response.status == 426
        assert b"websocket_needed" in response.content


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4000, "my own")])
async def test_how_the_client_closes_is_what_the_engine_gets(
    monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    async with serving(echo, monkeypatch) as stack, connected(stack) as socket:
        with trio.fail_after(10):
            await socket.aclose(code, reason)
        await until_free(stack)
        assert ends_of(stack) == [(code, reason)]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "oh"), (4000, "my own")])
async def test_how_the_engine_closes_is_what_the_client_gets(
    monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    async def close(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message("last words")
        await socket.aclose(code, reason)

    async with serving(close, monkeypatch) as stack, connected(stack) as socket:
        assert await socket.get_message() == "last words"
        assert await close_of(socket) == (code, reason)
        await until_free(stack)


async def test_a_client_that_is_gone_frees_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack:
        async with connected(stack) as socket:
            await socket.send_message("hello")
            await socket.get_message()
        await until_free(stack)
        assert ends_of(stack) == [(1001, "")]


async def test_an_engine_that_dies_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.get_message()
        await socket._stream.aclose()

    async with serving(die, monkeypatch) as stack, connected(stack) as socket:
        await socket.send_message("hello")
        with trio.fail_after(10):
            event = json.loads(await socket.get_message())
        assert (event["type"], event["error"]["code"]) == ("error", "engine_failed")
        assert (await close_of(socket))[0] == 1011
        await until_free(stack)


async def test_an_engine_that_talks_nonsense_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def babble(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket._stream.send_all(b"\xff" * 10)
        await trio.sleep_forever()

    async with serving(babble, monkeypatch) as stack, connected(stack) as socket:
        assert (await close_of(socket))[0] == 1011


async def test_the_gateway_s_end_ends_it_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(echo, monkeypatch, shutdown_grace_s=0.2) as stack,
        connected(stack) as socket,
    ):
        stack.gateway.begin_shutdown()
        with trio.fail_after(10):
            event = json.loads(await socket.get_message())
        assert event["error"]["code"] == "shutting_down"
        assert (await close_of(socket))[0] == 1012


async def test_an_engine_that_is_unloaded_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, monkeypatch) as stack, connected(stack) as socket:
        with trio.fail_after(10):
            await stack.post("/gateway/models/m/unload?force=true", b"")
            event = json.loads(await socket.get_message())
        assert event["error"]["code"] == "model_unloaded"
        assert (await close_of(socket))[0] == 1012


async def test_a_connection_in_which_nothing_is_said_is_closed(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1.0  # the engine's sockets are real; only the silence is skipped
    async with serving(echo, monkeypatch) as stack, connected(stack) as socket:
        for _ in range(4):
            mock_clock.jump(websocket_relay.IDLE_S / 2)
            await socket.send_message("still here")
            with trio.fail_after(10):
                assert await socket.get_message() == "still here"
        mock_clock.jump(websocket_relay.IDLE_S)
        assert await close_of(socket) == (1001, "nothing was sent for 600 s")
        await until_free(stack)


async def test_pings_are_answered_by_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    ponged = trio.Event()

    async def ping(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.ping()
        ponged.set()
        await trio.sleep_forever()

    async with serving(ping, monkeypatch) as stack, connected(stack) as socket:
        with trio.fail_after(10):
            await socket.ping()
            await ponged.wait()


# -- sizes and speed ------------------------------------------------------------------------------


async def test_a_message_that_is_too_large_ends_it_from_either_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_relay, "MESSAGE_MAX_BYTES", 100_000)

    async def too_much(request: WebSocketRequest) -> None:
        socket = await request.accept()
        if await socket.get_message() == "you":
            await socket.send_message(b"x" * 100_001)
        await socket.get_message()

    async with serving(too_much, monkeypatch) as stack:
        stack.network.config.websocket_max_message_size = 100_000
        async with connected(stack) as socket:
            await socket.send_message("you")
            assert (await close_of(socket))[0] == 1009
        async with connected(stack) as socket:
            await socket.send_message("x" * 100_001)
            assert (await close_of(socket))[0] == 1009
            await until_free(stack)
        assert [code for code, _ in ends_of(stack)] == [1009, 1009]


async def test_a_message_without_end_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    collect = _Session._collect

    async def noting(self: _Session, part: Any) -> None:
        await collect(self, part)
        held.append(len(self._begun))

    monkeypatch.setattr(_Session, "_collect", noting)
    async with serving(echo, monkeypatch) as stack:
        stack.network.config.websocket_max_message_size = 100_000
        client = stack.network.connect(buffered=False)
        await client.send_all(HEAD)
        await client.receive_some(65536)
        # Frames of 1000 bytes, masked with zeros; none is the last one of its message.
        frame = b"\xfe" + (1000).to_bytes(2, "big") + bytes(4) + bytes(1000)
        said = bytearray()

        async def hear_all() -> None:
            while piece := await client.receive_some(65536):
                said.extend(piece)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear_all)
                # The end may come while these are sent.
                with contextlib.suppress(trio.BrokenResourceError):
                    await client.send_all(b"\x02" + frame)
                    for _ in range(1000):
                        await client.send_all(b"\x00" + frame)
        assert said[:1] + said[2:4] == b"\x88" + (1009).to_bytes(2, "big")
        assert 90_000 < max(held) <= 100_000
        assert held[-1] == 0


async def test_what_the_engine_does_not_take_waits_at_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = trio.Event()
    piece = b"x" * 1_000_000
    taken = 0

    async def slow(request: WebSocketRequest) -> None:
        nonlocal taken
        socket = await request.accept()
        await go_on.wait()
        while True:
            taken += len(await socket.get_message())

    async with serving(slow, monkeypatch) as stack:
        ours, theirs = trio.testing.lockstep_stream_pair()
        monkeypatch.setattr(stack.network, "_pair", lambda buffered: (ours, theirs))
        async with connected(stack) as socket:
            sent = 0

            async def send_on() -> None:
                nonlocal sent
                while True:
                    await socket.send_message(piece)
                    sent += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_on)
                # what the session and the sockets' buffers hold
                stood = await standing_still(lambda: sent, 1, 49)
                go_on.set()
                with trio.fail_after(10):
                    while taken < stood * len(piece):  # noqa: ASYNC110
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel(reason="all of it came")


async def test_what_the_client_does_not_take_waits_at_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = 0

    async def fast(request: WebSocketRequest) -> None:
        nonlocal sent
        socket = await request.accept()
        while True:
            await socket.send_message(b"x" * 1_000_000)
            sent += 1

    async with serving(fast, monkeypatch) as stack:
        ours, theirs = trio.testing.lockstep_stream_pair()
        monkeypatch.setattr(stack.network, "_pair", lambda buffered: (ours, theirs))
        async with connected(stack):
            await standing_still(lambda: sent, 1, 49)


# -- before it is accepted ------------------------------------------------------------------------

HEAD = (
    f"GET {PATH} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


@pytest.mark.parametrize("too_early", [b"", b"\x81\x00"])
async def test_a_client_that_leaves_while_it_waits_gives_up_its_place(
    monkeypatch: pytest.MonkeyPatch, too_early: bytes
) -> None:
    async with serving(echo, monkeypatch) as stack:

        async def tickets() -> Any:
            return json.loads((await stack.get("/gateway/queue")).content)["tickets"]

        async def connections() -> int:
            return stack.network.servers_running

        stack.engines.load_s = 1000.0
        client = stack.network.connect()
        await client.send_all(HEAD + too_early)
        await stack.engines.launched.wait()
        await client.aclose()
        await until(tickets, [])
        await until(connections, 0)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_a_client_that_takes_nothing_gives_its_engine_back(
    monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    async def flood(request: WebSocketRequest) -> None:
        socket = await request.accept()
        while True:
            await socket.send_message("x" * 100_000)

    handshake = (
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    limits, ca = ConnectionLimits(send_timeout_s=0.5), authority(is_tls)
    async with serving(flood, monkeypatch) as stack, served(stack.gateway, limits, ca) as port:
        client = await tiny_window(port, ca)
        await client.send_all(handshake.encode())
        assert (await client.receive_some(100)).startswith(b"HTTP/1.1 101 ")
        (engine,) = stack.manager.overview.engines()
        assert engine.leases == 1
        await until_free(stack)
        await trio.aclose_forcefully(client)


@pytest.mark.parametrize("is_open", [False, True])
async def test_one_that_is_cancelled_is_told_so(
    monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    async with serving(echo, monkeypatch) as stack, trio.open_nursery() as nursery:

        async def cancel() -> None:
            (id_,) = stack.gateway.book.live
            answer = await stack.post(f"/gateway/requests/{id_}/cancel", b"")
            assert answer.status == 200

        if is_open:
            async with connected(stack) as socket:
                await socket.send_message("hello")
                assert await socket.get_message() == "hello"
                await cancel()
                said = json.loads(await socket.get_message())
                assert (said["type"], said["error"]["code"]) == ("error", "request_cancelled")
                assert (await close_of(socket))[0] == 1008
        else:
            stack.engines.load_s = 1000.0
            refused: list[tuple[int, str]] = []

            async def connect() -> None:
                refused.append(await refusal_of(stack))

            nursery.start_soon(connect)
            await stack.engines.launched.wait()
            await cancel()
            await until(lambda: _async_len(refused), 1)
            assert refused == [(499, "request_cancelled")]
        await until_free(stack)
        record = stack.gateway.book.recent[-1]
        assert (record.error, record.model) == ("request_cancelled", "m" if is_open else None)
        assert record.outcome is Outcome.CANCELLED


async def _async_len(found: Sequence[object]) -> int:
    return len(found)
