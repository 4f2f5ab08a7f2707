"""A remote model at several URLs, over real sockets: who gets what, and what is known of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.asking import CHAT
from tests.support.openai_site import Breaks, Site, running
from tests.support.sockets import whole_body
from trio_gateway.config.schema import EngineOptions, Secret
from trio_gateway.config.site_schema import Balance, SiteOptions
from trio_gateway.engine.clients.headers import AFFINITY
from trio_gateway.engine.clients.remote import RemoteEngine
from trio_gateway.engine.errors import EngineUnreachable
from trio_gateway.engine.http.socket import HandshakeRefused
from trio_gateway.engine.sites.circuit import FIRST_PAUSE_S, CircuitState
from trio_gateway.engine.sites.state import SiteState

QUEUE = "/gateway/queue"
KEY = "sk-of-the-gateway"


class Held(Site):
    """Its completions wait until they may begin."""

    def __init__(self, name: str, answers: dict[str, tuple[int, Any]] | None = None) -> None:
        super().__init__(name, answers)
        self.may_answer = trio.Event()

    async def complete(self, stream: Any, request: dict[str, Any]) -> None:
        await self.may_answer.wait()
        await super().complete(stream, request)


@asynccontextmanager
async def sites(
    *servers: Site, weights: Sequence[float | None] = (), **options: Any
) -> AsyncIterator[RemoteEngine]:
    async with trio.open_nursery() as nursery:
        for server in servers:
            await nursery.start(_run, server)
        given = zip(servers, weights or [None] * len(servers), strict=True)
        there = tuple(SiteOptions(url=server.url, weight=weight) for server, weight in given)
        urls = tuple(site.url for site in there)
        client = RemoteEngine(urls[0], EngineOptions(urls=urls, sites=there, **options))
        yield client
        await client.aclose()
        assert [state.ours for state in states(client)] == [0] * len(servers)
        nursery.cancel_scope.cancel(reason="the test is over")


async def _run(server: Site, task_status: trio.TaskStatus[None]) -> None:
    async with running(server):
        task_status.started()
        await trio.sleep_forever()


def states(client: RemoteEngine) -> list[SiteState]:
    return [client.sites.state(site) for site in client.sites.all]


def ours(client: RemoteEngine) -> list[int]:
    return [state.ours for state in states(client)]


async def post(client: RemoteEngine, conversation: bytes | None = None) -> bytes:
    headers = [] if conversation is None else [(AFFINITY, conversation)]
    body = b'{"model":"m"}'
    async with client.forward_request("POST", CHAT, headers, body) as exchange:
        return await whole_body(exchange)


def count(server: Site) -> int:
    return server.asked.count(CHAT)


SPREAD: dict[str, Any] = {"balance": Balance.LEAST_LOADED}


# -- who gets what ----------------------------------------------------------------------------


async def test_requests_at_the_same_time_are_spread_by_weight() -> None:
    a, b = Held("a"), Held("b")
    async with sites(a, b, weights=(1.0, 3.0)) as client:
        await client.check_health(2.0)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(post, client)
            await trio.testing.wait_all_tasks_blocked()
            assert ours(client) == [2, 6]
            a.may_answer.set()
            b.may_answer.set()
        assert (count(a), count(b)) == (2, 6)


async def test_without_a_word_all_go_to_the_first() -> None:
    a, b = Site("a"), Site("b")
    async with sites(a, b) as client:
        for _ in range(4):
            await post(client, b"0123")
        assert (count(a), count(b)) == (4, 0)
        assert not client.routes_by_affinity


async def test_a_conversation_stays_where_its_last_turn_was_answered() -> None:
    a, b = Site("a"), Site("b")
    async with sites(a, b, **SPREAD) as client:
        await client.check_health(2.0)
        assert client.routes_by_affinity
        homes = {key: await post(client, key) for key in (b"one", b"two")}
        assert homes[b"one"] != homes[b"two"]
        for key in (b"one", b"one", b"two", b"one"):
            assert await post(client, key) == homes[key]
        assert not any(b"ffinity" in head for head in (*a.heads, *b.heads))


async def test_it_goes_elsewhere_and_stays_there_if_its_site_breaks() -> None:
    a, b = Site("a"), Site("b")
    async with sites(a, b, **SPREAD) as client:
        await client.check_health(2.0)
        home, other = (a, b) if b'"a"' in await post(client, b"one") else (b, a)
        home.breaks = Breaks.BEFORE_HEAD
        before = count(other)
        for _ in range(3):
            await post(client, b"one")
        assert count(other) == before + 3
        home.breaks = None
        assert client.sites.choose(client.sites.all, b"one", 0.0)[0].url == other.url


async def test_another_gateway_is_told_the_conversation() -> None:
    async with sites(Site("a"), gateway=True) as client:
        assert client.routes_by_affinity
        await post(client, b"0123456789abcdef")
    async with sites(a := Site("a"), gateway=True) as client:
        await post(client, b"0123456789abcdef")
        assert b"x-gateway-affinity: 0123456789abcdef" in a.heads[-1]


async def test_one_that_is_asked_too_often_is_left_alone_for_a_while() -> None:
    a, b = Site("a"), Site("b")
    a.status = b.status = 429
    async with sites(a, b, **SPREAD) as client:
        await post(client)
        assert (count(a), count(b)) == (1, 1)
        b.status = 200
        for _ in range(3):
            await post(client)
        assert (states(client)[0].works, count(b)) == (False, 4)


async def test_one_that_fails_fast_does_not_draw_all_requests() -> None:
    a, b = Site("a"), Site("b")
    a.status = 500  # it is passed on: another site would hardly do better
    async with sites(a, b, **SPREAD) as client:
        await client.check_health(2.0)
        for _ in range(5):
            await post(client)
        assert (count(a), count(b)) == (1, 4)
    async with sites(a, b) as client:  # it is the first for what it answers otherwise
        for _ in range(2):
            await post(client)
        assert (count(a), count(b)) == (3, 4)


# -- one that has failed ----------------------------------------------------------------------


@pytest.mark.parametrize("balance", Balance)
async def test_one_request_tries_it_again_and_the_others_go_elsewhere(
    balance: Balance, mock_clock: MockClock
) -> None:
    a, b = Held("a"), Site("b")
    a.breaks = Breaks.BEFORE_HEAD
    a.may_answer.set()
    async with sites(a, b, balance=balance) as client:
        while states(client)[0].works is not False:
            await post(client)
        a.breaks, a.may_answer = None, trio.Event()
        before, answered = count(a), count(b)
        mock_clock.jump(FIRST_PAUSE_S)
        await client.check_health(2.0)
        circuit = states(client)[0].circuit
        assert circuit.state(trio.current_time()) is CircuitState.HALF_OPEN
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(post, client)
            await trio.testing.wait_all_tasks_blocked()
            assert ours(client)[0] == 1
            a.may_answer.set()
        assert (count(a), count(b)) == (before + 1, answered + 4)
        assert circuit.works


async def test_a_check_asks_it_only_once_its_pause_is_over(mock_clock: MockClock) -> None:
    a, b = Site("a", {"/health": (503, {})}), Site("b")
    async with sites(a, b, health_interval_s=1000.0) as client:
        for jump, times in ((0.0, 1), (0.5, 1), (0.5, 2), (1.0, 2), (1.0, 3)):
            mock_clock.jump(jump)
            await client.check_health(2.0)
            assert a.asked.count("/health") == times
        assert b.asked.count("/health") == 1  # it is not the turn of all
        a.answers["/health"] = (200, {})
        mock_clock.jump(4.0)
        await client.check_health(2.0)
        assert states(client)[0].works


async def test_where_none_works_requests_try_them_all() -> None:
    a, b = Site("a"), Site("b")
    a.breaks = b.breaks = Breaks.BEFORE_HEAD
    async with sites(a, b, **SPREAD) as client:
        for times in (1, 2):
            with pytest.raises(EngineUnreachable, match="none of its URLs works"):
                await post(client)
            assert (count(a), count(b)) == (times, times)
        a.breaks = None
        assert b'"a"' in await post(client)
        assert states(client)[0].works


async def test_of_a_request_that_is_cancelled_nothing_is_left(mock_clock: MockClock) -> None:
    a, b = Held("a"), Site("b")
    async with sites(a, b) as client:
        state = states(client)[0]
        state.note_bad(trio.current_time(), "x", of_request=True)
        mock_clock.jump(FIRST_PAUSE_S)
        await client.check_health(2.0)
        for _ in range(2):  # the second is let in as well
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post, client)
                await trio.testing.wait_all_tasks_blocked()
                assert ours(client) == [1, 0]
                nursery.cancel_scope.cancel(reason="its client is gone")
            assert ours(client) == [0, 0]


async def test_a_websocket_goes_the_same_way() -> None:
    refuses: dict[str, tuple[int, Any]] = {"/v1/realtime": (400, {})}
    async with sites(Site("a", refuses), Site("b", refuses), **SPREAD) as client:
        client.sites.state(client.sites.all[0]).ours = 1
        with pytest.raises(HandshakeRefused):
            async with client.open_socket("/v1/realtime", [], [], 1000):
                raise AssertionError
        client.sites.state(client.sites.all[0]).ours = 0
        assert [state.chosen for state in states(client)] == [0, 1]


# -- what is known of each --------------------------------------------------------------------


async def test_what_another_gateway_has_to_do_counts(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    busy, idle = (200, {"waiting": 2, "running": 3}), (200, {"waiting": 0, "running": 0})
    a, b = Site("a", {QUEUE: busy}), Site("b", {QUEUE: idle})
    there: dict[str, Any] = {"gateway": True, "api_key": Secret(KEY), **SPREAD}
    async with sites(a, b, **there) as client:
        await client.check_health(2.0)
        assert all(f"Bearer {KEY}".encode() in head for head in a.heads)
        for _ in range(3):
            assert b'"b"' in await post(client)
        row, _ = rows(client)
        assert (row.peer_waiting, row.peer_running) == (2, 3)
        _, why = client.sites.choose(client.sites.all, None, trio.current_time())
        assert "0 of ours there, 0 of ours at" in why
        assert why.endswith("and 5 of others")
        a.answers[QUEUE] = (403, {"error": {}})
        for _ in range(2):
            mock_clock.jump(client.options.health_interval_s)
            await client.check_health(2.0)
        told = [line for line in caplog.messages if "forwards = true" in line]
        assert told == [f"{a.url} does not say what it has to do (HTTP 403): `api_key` needs "
                        "forwards = true there"]  # fmt: skip
        assert rows(client)[0].peer_waiting is None
        assert states(client)[0].works


async def test_nobody_else_is_asked_for_a_queue() -> None:
    a, b = Site("a"), Site("b")
    alone: list[dict[str, Any]] = [{"gateway": True}, SPREAD]
    for options in alone:
        async with sites(a, b, **options) as client:
            await client.check_health(2.0)
    assert QUEUE not in (*a.asked, *b.asked)


async def test_the_first_bytes_of_streams_are_measured() -> None:
    async with sites(Site("a"), Site("b"), **SPREAD) as client:
        await client.check_health(2.0)
        await post(client)
        assert [state.first_byte.value for state in states(client)] == [None, None]
        body = b'{"model":"m","stream":true}'
        async with client.forward_request("POST", CHAT, [], body) as exchange:
            await whole_body(exchange)
        assert [state.first_byte.value is None for state in states(client)].count(False) == 1
        assert any(row.first_byte_s is not None for row in rows(client))


async def test_a_row_says_what_is_wrong_and_when_it_is_tried_again(mock_clock: MockClock) -> None:
    a, b = Site("a"), Site("b")
    a.status = 503
    async with sites(a, b, weights=(None, 2.0)) as client:
        assert [row.state for row in rows(client)] == ["untried", "untried"]
        await client.check_health(2.0)
        states(client)[1].ours = 9
        await post(client)
        states(client)[1].ours = 0
        now = trio.current_time()
        failed, good = client.site_rows(now, 1000.0)
        assert (failed.url, failed.state, failed.reason) == (a.url, "open", "HTTP 503")
        assert (failed.since_s, failed.retry_at_s) == (1000.0, 1000.0 + FIRST_PAUSE_S)
        assert (good.state, good.weight, good.retry_at_s) == ("works", 2.0, None)
        mock_clock.jump(FIRST_PAUSE_S)
        assert rows(client)[0].state == "half-open"


def rows(client: RemoteEngine) -> Any:
    return client.site_rows(trio.current_time(), 1000.0)
