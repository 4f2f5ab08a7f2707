"""What a connection does when its client stalls, leaves, or sends too much. In memory."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing
from quart import Response
from quart_trio import QuartTrio

from tests.support.memory_network import FakeSocket, MemoryNetwork
from tests.support.socket_network import SocketNetwork
from trio_gateway.server.http.scopes import RequestScopes, TornStream
from trio_gateway.server.http.types import (
    HALF_CLOSED_S,
    LINGER_S,
    REQUEST_KEY,
    AsgiApp,
    ClientGone,
    Message,
    Scope,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"

Network = type[MemoryNetwork]


@pytest.fixture(params=[MemoryNetwork, SocketNetwork])
def network_of(request: pytest.FixtureRequest) -> Any:
    """In memory there is a task that reads all the time, for sockets one that waits for the end."""
    return request.param


def quart_app() -> Any:
    app = QuartTrio("test", static_folder=None)

    @app.get("/")
    async def root() -> Response:
        return Response(b"answer", content_type="text/plain")

    return app


async def idle_connection_closes_after(network: MemoryNetwork) -> float:
    """Seconds from the answer to the server closing a connection that stays idle."""
    network.config.keep_alive_timeout = 5
    client = network.connect()
    await client.send_all(REQUEST)
    answer = await client.receive_some(65536)
    while b"answer" not in answer:
        answer += await client.receive_some(65536)
    begun = trio.current_time()
    with trio.move_on_after(100):
        while await client.receive_some(65536):
            pass
    await client.aclose()
    return trio.current_time() - begun


async def test_an_idle_connection_is_closed_after_the_keep_alive_timeout(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    network = network_of(nursery, RequestScopes(quart_app()))
    assert await idle_connection_closes_after(network) == 5


async def endless(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await trio.sleep(1)


class StalledStream:
    """A client that sent a request and reads nothing: a send returns when its host gives up."""

    def __init__(self) -> None:
        self.socket = FakeSocket()
        self._request = REQUEST
        self.stalled, self.gave_up, self.closed = trio.Event(), trio.Event(), trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        request, self._request = self._request, b""
        if not request:
            await self.closed.wait()
        return request

    async def send_all(self, data: bytes) -> None:
        self.stalled.set()
        await self.gave_up.wait()
        raise trio.BrokenResourceError

    async def send_eof(self) -> None:
        raise trio.ClosedResourceError

    async def aclose(self) -> None:
        self.closed.set()


async def ends_when_cancelled() -> bool:
    """Whether a connection to a stalled client ends within 1,000 s of being cancelled."""
    stream, scope, ended = StalledStream(), trio.CancelScope(), trio.Event()
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, endless)

        async def serve() -> None:
            with scope:
                await network.serve(stream)
            ended.set()

        nursery.start_soon(serve)
        await stream.stalled.wait()
        scope.cancel(reason="shutdown")
        with trio.move_on_after(1000):
            await ended.wait()
        in_time = ended.is_set()
        stream.gave_up.set()
        await ended.wait()
    assert stream.closed.is_set()
    return in_time


async def test_a_stalled_reader_does_not_hold_up_a_cancellation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await ends_when_cancelled()


async def closed_idle_connection_ends_after(network: MemoryNetwork) -> float:
    """Seconds from a client closing its idle connection to the server letting go of it."""
    network.config.keep_alive_timeout = 75
    client = network.connect()
    await client.send_all(REQUEST)
    while b"answer" not in await client.receive_some(65536):
        pass
    await trio.testing.wait_all_tasks_blocked()
    begun = trio.current_time()
    await client.aclose()
    for _ in range(100):
        if not network.servers_running:
            break
        await trio.sleep(1)
    return trio.current_time() - begun


async def test_an_idle_connection_that_its_client_closed_is_let_go_at_once(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    network = network_of(nursery, RequestScopes(quart_app()))
    assert await closed_idle_connection_ends_after(network) <= 1


async def early_answer(app: AsgiApp, nursery: trio.Nursery, body_bytes: int) -> tuple[bytes, int]:
    """The answer to a large upload, and how much of it the server took before it closed."""
    client = MemoryNetwork(nursery, app).connect(buffered=False)
    head = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % body_bytes
    answer, taken = b"", 0

    async def upload() -> None:
        nonlocal taken
        await client.send_all(head)
        with contextlib.suppress(trio.BrokenResourceError):
            while taken < body_bytes:
                await client.send_all(b"x" * 1000)
                taken += 1000

    async with trio.open_nursery() as both:
        both.start_soon(upload)
        while b"too large" not in answer:
            answer += await client.receive_some(65536)
        both.start_soon(client.receive_some)
    return answer, taken


def refusing_app() -> Any:
    app = QuartTrio("test", static_folder=None)

    @app.post("/")
    async def root() -> Response:
        return Response(b"too large", status=413)

    return app


async def test_an_upload_that_is_refused_is_read_to_its_end(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    answer, taken = await early_answer(RequestScopes(refusing_app()), nursery, 500_000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert taken == 500_000


async def test_an_upload_that_stalls_is_not_waited_for_without_end(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    client = MemoryNetwork(nursery, RequestScopes(refusing_app())).connect()
    await client.send_all(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5000\r\n\r\n")
    while await client.receive_some(65536):
        pass
    assert trio.current_time() == pytest.approx(LINGER_S, abs=0.1)


async def test_the_app_learns_that_its_client_went_away_while_it_was_sent_to(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    told = trio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        try:
            await endless(scope, receive, send)
        except ClientGone:
            told.set()
            raise

    stream = StalledStream()
    nursery.start_soon(MemoryNetwork(nursery, app).serve, stream)
    await stream.stalled.wait()
    stream.gave_up.set()
    with trio.fail_after(10):
        await told.wait()
    stream.closed.set()


async def pipelining_client_leaves(nursery: trio.Nursery, network_of: Network) -> int:
    """Connections left of a client that sent a byte too many in a stream and went away."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await trio.sleep(1)

    network = network_of(nursery, RequestScopes(app))
    client = network.connect()
    await client.send_all(REQUEST + b"G")
    await client.receive_some(1)
    await client.aclose()
    await trio.sleep(100)
    return network.servers_running


async def test_a_client_that_pipelines_and_leaves_is_let_go(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    assert await pipelining_client_leaves(nursery, network_of) == 0


async def all_for_a_half_closed_client(network: MemoryNetwork, *sent: bytes) -> bytes:
    client = network.connect()
    for piece in sent:
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(piece)
    await client.send_eof()
    answer = b""
    while piece := await client.receive_some(65536):
        answer += piece
    return answer


@pytest.mark.parametrize(
    "sent", [[REQUEST], [REQUEST * 3], [REQUEST[:9], REQUEST[9:]]], ids=["one", "three", "pieces"]
)
async def test_a_client_that_closes_its_side_gets_what_is_answered_at_once(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    network_of: Network,
    sent: list[bytes],
) -> None:
    begun = trio.current_time()
    network = network_of(nursery, RequestScopes(quart_app()))
    answer = await all_for_a_half_closed_client(network, *sent)
    assert answer.count(b"HTTP/1.1 200 ") == b"".join(sent).count(b"GET ")
    assert answer.endswith(b"answer")
    assert trio.current_time() == begun


async def test_a_client_that_closes_its_side_is_not_waited_for(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    begun = trio.current_time()
    assert await all_for_a_half_closed_client(network_of(nursery, endless), REQUEST) != b""
    assert trio.current_time() == pytest.approx(begun + HALF_CLOSED_S)


async def test_a_request_under_way_ends_as_soon_as_its_client_leaves(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    network = network_of(nursery, endless)
    client = network.connect()
    await client.send_all(REQUEST)
    await trio.sleep(HALF_CLOSED_S)
    await client.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    assert network.servers_running == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        REQUEST,
        REQUEST[:-2],
        b"POST /nothing HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n",
        b"not HTTP\r\n\r\n",
    ],
    ids=["new", "idle", "half a head", "answered before its body came", "refused"],
)
async def test_a_server_that_stops_waits_for_nobody_who_owes_it_something(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    network_of: Network,
    sent: bytes,
) -> None:
    network = network_of(nursery, RequestScopes(quart_app()))
    client = network.connect()
    await client.send_all(sent)
    await trio.testing.wait_all_tasks_blocked()
    network.connections.stop()
    await trio.testing.wait_all_tasks_blocked()
    assert network.servers_running == 0


async def test_what_a_request_owns_is_released_however_it_ends(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    released: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scope[REQUEST_KEY].stack.callback(released.append, scope["path"])
        await receive()
        if scope["path"] == "/waits":
            await receive()
        elif scope["path"] == "/fails":
            raise RuntimeError("a bug")
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    network = network_of(nursery, RequestScopes(app))
    for path in (b"/answers", b"/fails", b"/waits"):
        client = network.connect()
        await client.send_all(REQUEST.replace(b" / ", b" " + path + b" "))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.sleep(HALF_CLOSED_S + 0.01)
    assert released == ["/answers", "/fails", "/waits"]


async def test_torn_stream_closes_the_connection_without_an_end(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, network_of: Network
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise TornStream("the engine died")

    network = network_of(nursery, RequestScopes(app))
    client = network.connect()
    await client.send_all(REQUEST)
    answer = b""
    while piece := await client.receive_some(65536):
        answer += piece
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_every_answer_names_its_request(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await RequestScopes(app)(scope, trio.sleep_forever, send)
    assert sent[0]["headers"] == [(b"x-gateway-request-id", scope[REQUEST_KEY].id.encode())]
