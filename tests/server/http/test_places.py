"""Who gets one of the last connections, and who makes room for it. In memory, a virtual clock."""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.memory_network import FakeSocket, MemoryNetwork
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.engine.process import open_files
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http import places
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.places import AcceptLog, Place, Places, Silence
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import REQUEST_KEY, Scope

Clock = trio.testing.MockClock

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\n12345"
LIMIT = 16
FOR_LOOPBACK = LIMIT - 1  # the last is for socket files
FOR_NETWORK = LIMIT - 2


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    try:
        await scope[REQUEST_KEY].upload.read_all()
    except ApiError as error:
        await refusal_in(scope, error).send(scope, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def network(nursery: trio.Nursery, app: Any = hello, limit: int = LIMIT) -> MemoryNetwork:
    limits = ConnectionLimits(max_connections=limit)
    found = MemoryNetwork(nursery, RequestScopes(app), ClientConnections(limits))
    found.config = HttpConfig(limits)
    found.config.keep_alive_timeout = 75
    return found


async def is_served(net: MemoryNetwork) -> bool:
    client = net.connect()
    try:
        await client.send_all(REQUEST)
        answer: bytes = await client.receive_some(65536)
    except trio.BrokenResourceError:
        return False
    await client.aclose()
    return answer.startswith(b"HTTP/1.1 200 ")


async def all_of(client: Any) -> bytes:
    answer = b""
    while piece := await client.receive_some(65536):
        answer += piece
    return answer


# -- whole connections ----------------------------------------------------------------------------

SILENT = {
    "nothing": b"", "a part of a head": REQUEST[:-2], "a request": REQUEST, "a part of a body": POST
}  # fmt: skip


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT)
async def test_clients_that_fall_silent_shut_nobody_out(
    autojump_clock: Clock, nursery: trio.Nursery, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    net = network(nursery)
    silent = []
    for _ in range(10 * LIMIT):
        silent.append(client := net.connect())
        await client.send_all(said)
        await trio.sleep(places.PATIENCE_S)
        assert net.servers_running <= LIMIT
        assert await is_served(net)
    assert trio.current_time() == 10 * LIMIT * places.PATIENCE_S
    assert not caplog.records
    for client in silent:
        await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert len(net.connections.places) == net.servers_running == 0


@pytest.mark.parametrize("said", [b"", REQUEST[:-2]], ids=["nothing", "a part of a head"])
@pytest.mark.parametrize("pause_s", [0.2, 3.0])
async def test_who_asks_again_and_again_keeps_its_place_whatever_comes_beside_it(
    autojump_clock: Clock, nursery: trio.Nursery, said: bytes, pause_s: float
) -> None:
    net = network(nursery)
    client = net.connect()
    for _ in range(4):
        await client.send_all(REQUEST)
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
        await trio.sleep(pause_s)
        for _ in range(4 * LIMIT):  # faster than any of them has time to begin
            await net.connect().send_all(said)
            await trio.testing.wait_all_tasks_blocked()


async def test_who_has_begun_a_request_is_told_why_it_goes(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    nothing, begun = net.connect(), net.connect()
    await begun.send_all(REQUEST[:-2])
    await trio.sleep(1)
    for client in [net.connect() for _ in range(FOR_LOOPBACK - 2)]:
        await client.send_all(REQUEST[:-2])
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        await net.connect().send_all(REQUEST[:-2])
    assert await all_of(nothing) == b""
    assert (await all_of(begun)).startswith(b"HTTP/1.1 503 ")
    assert trio.current_time() == 1


async def test_a_body_that_stops_coming_gets_a_503_if_its_place_is_needed(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    net = network(nursery)
    clients = [net.connect() for _ in range(FOR_LOOPBACK)]
    for client in clients:
        await client.send_all(POST)
    await trio.testing.wait_all_tasks_blocked()
    assert not await is_served(net)  # each might go on at any moment
    await trio.sleep(places.PATIENCE_S)
    assert await is_served(net)
    answers = []
    for client in clients:
        with suppress(trio.BrokenResourceError):
            await client.send_all(b"67890")
        answers.append(await client.receive_some(65536))
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(refused) == 1
    assert b"no_connections_left" in refused[0]
    assert b"retry-after: 1" in refused[0].lower()
    assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == FOR_LOOPBACK - 1


async def test_a_reader_that_stalls_makes_room_and_one_that_reads_does_not(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def endless(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})

    net = network(nursery, endless)
    clients = [net.connect(buffered=False) for _ in range(FOR_LOOPBACK)]
    for client in clients:
        nursery.start_soon(client.send_all, REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(7):
        await trio.sleep(0.5)
        await clients[0].receive_some(5000)
    late = net.connect()
    await late.send_all(REQUEST)
    assert (await late.receive_some(100)).startswith(b"HTTP/1.1 200 ")
    assert await goes_on(clients[0])
    assert [await goes_on(client) for client in clients[1:]].count(False) == 1
    nursery.cancel_scope.cancel(reason="the test is over")


async def goes_on(client: Any) -> bool:
    """Whether more comes than what was on its way."""
    return all([await client.receive_some(65536) for _ in range(5)])


async def test_requests_under_way_keep_their_places_and_others_are_told(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = trio.Event()

    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await go_on.wait()
        await hello(scope, receive, send)

    net = network(nursery, slow)
    clients = [net.connect() for _ in range(FOR_LOOPBACK)]
    for client in clients:
        await client.send_all(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(3):
        answer = await all_of(net.connect())
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"no_connections_left" in answer
        assert b"retry-after: 1" in answer.lower()
    assert len(caplog.records) == 1
    assert "server.max_connections" in caplog.text
    go_on.set()
    for client in clients:
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    assert await is_served(net)


async def test_the_last_are_for_this_machine_and_the_very_last_for_socket_files(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers: list[Any] = []

    def getpeername(self: Any) -> Any:
        self.peer = self.peer if hasattr(self, "peer") else peers.pop(0)
        return self.peer

    monkeypatch.setattr(FakeSocket, "getpeername", getpeername)

    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async def takes_in(net: MemoryNetwork, peer: Any) -> bool:
        peers.append(peer)
        client = net.connect()
        await client.send_all(REQUEST)
        with trio.move_on_after(1):
            return not (await client.receive_some(65536)).startswith(b"HTTP/1.1 503 ")
        return True

    net = network(nursery, slow)
    for n in range(FOR_NETWORK):
        assert await takes_in(net, (f"10.0.0.{n}", 1))
    assert not await takes_in(net, ("10.0.1.1", 1))
    assert await takes_in(net, ("127.0.0.1", 1))
    assert not await takes_in(net, ("127.0.0.1", 1))
    assert await takes_in(net, "")
    assert not await takes_in(net, "")
    nursery.cancel_scope.cancel(reason="the test is over")


# -- who goes first -------------------------------------------------------------------------------


class Client:
    def __init__(self, silence: Silence | None, since: float) -> None:
        self._silence, self._since = silence, since
        self.error: ApiError | None = None

    def silence(self) -> tuple[Silence, float] | None:
        return None if self._silence is None else (self._silence, self._since)

    def make_room(self, error: ApiError) -> None:
        self.error = error


def entered(found: Places, host: str | None, guest: Client) -> Place:
    place = found.enter(host, host)
    assert place is not None
    place.guest = guest
    return place


async def test_who_goes_first(autojump_clock: Clock) -> None:
    await trio.sleep(100)
    found = Places(12)
    waiting = [
        ("10.0.0.1", Client(Silence.IN_REQUEST, 0)),
        ("10.0.0.2", Client(Silence.BEGUN, 1)),
        ("10.0.0.3", Client(Silence.IDLE, 3)),
        ("10.0.0.4", Client(Silence.IDLE, 2)),
        ("10.0.0.5", Client(Silence.IN_REQUEST, 99.5)),  # not long enough
        ("10.0.0.6", Client(None, 0)),
        ("10.0.0.7", Client(Silence.IN_REQUEST, 90)),
        ("10.0.0.7", Client(Silence.IN_REQUEST, 91)),
        ("10.0.0.8", Client(Silence.IDLE, 96)),  # in use
        ("10.0.0.9", Client(Silence.BEGUN, 99.5)),
    ]
    for host, guest in waiting:
        entered(found, host, guest)
    gone = []
    for _ in range(8):
        entered(found, "10.0.1.1", Client(None, 0))
        gone += [n for n, (_, c) in enumerate(waiting) if c.error is not None and n not in gone]
    # The address that has two first, then by how long they have been silent, then by what is lost.
    assert gone == [6, 1, 3, 2, 9, 8, 0, 7]
    assert found.enter("10.0.1.1", "10.0.1.1") is None


async def test_clients_of_the_network_take_no_place_of_this_machine(autojump_clock: Clock) -> None:
    found = Places(10)
    local = [Client(Silence.IDLE, n) for n in range(9)]
    for client in local:
        entered(found, "127.0.0.1", client)
    assert found.enter("10.0.0.1", "10.0.0.1") is None
    assert found.enter("::1", "::1") is not None
    assert [client.error is not None for client in local] == [True] + [False] * 8


@pytest.mark.parametrize(
    ("files", "wanted", "limit"),
    [(1024, None, 341), (20_000, None, 4096), (2**20, 9000, 9000), (256, 9000, 85), (9, 1, 4)],
)
def test_there_are_fewer_places_than_files(
    monkeypatch: pytest.MonkeyPatch, files: int, wanted: int | None, limit: int
) -> None:
    monkeypatch.setattr(open_files, "limit", lambda: files)
    assert Places(wanted).limit == limit


# -- no files left --------------------------------------------------------------------------------


async def test_no_files_is_one_line_a_minute_without_a_traceback(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("tests.accepting")
    logger.addFilter(AcceptLog())
    for _ in range(1210):
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError:
            logger.exception(
                "accept returned %s (%s); retrying in %s seconds",
                "EMFILE", "Too many open files", 0.1,
            )  # fmt: skip
        await trio.sleep(0.1)
    logger.error("something else")
    *told, other = caplog.records
    assert len(told) == 3
    assert all(record.exc_info is None for record in told)
    assert "Too many open files; it is tried again" in caplog.text
    assert other.getMessage() == "something else"
