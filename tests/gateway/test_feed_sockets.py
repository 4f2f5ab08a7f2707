"""Readers of the feed that take nothing, over real sockets: they hold up nobody."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
import trio

from tests.support.asking import CHAT, chat
from tests.support.feed_reader import FEED, Event, events_in
from tests.support.patience import patient
from tests.support.real_sockets import authority, served, tiny_window
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.feed import feed as feed_module
from trio_gateway.server.feed.ring import BYTES_MAX
from trio_gateway.server.http.client_connections import ClientConnections

LOG = logging.getLogger("trio_gateway.test")
LIMITS = ConnectionLimits(send_timeout_s=60)
GET = f"GET {FEED} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
MIB = 1024**2
# Of events: more than the ring has, and than the systems on both sides take ahead.
MUCH = 8 * MIB
LINE = "x" * 4096


@asynccontextmanager
async def reading_nothing(
    monkeypatch: pytest.MonkeyPatch, *, is_tls: bool = False
) -> AsyncIterator[tuple[Stack, Any, ClientConnections]]:
    """A gateway, and a reader of its feed that has taken the first of it."""
    monkeypatch.setattr(feed_module, "LOOK_S", 0.01)
    ca, connections = authority(is_tls), ClientConnections(LIMITS, counted=False)
    async with (
        running_stack(config(model("m"), limits=LIMITS)) as stack,
        served(stack.gateway, LIMITS, ca, connections) as port,
    ):
        stack.engines.load_s = stack.engines.stop_s = 0.0
        client = await tiny_window(port, ca)
        async with client:
            await client.send_all(GET)
            assert (await client.receive_some(100)).startswith(b"HTTP/1.1 200 ")
            # It is answered before the feed looks for the first time: what is logged until then is
            # older than its snapshot, and no event.
            with trio.fail_after(patient(10)):
                while not stack.gateway.feed.is_awake:  # noqa: ASYNC110 - readers are told only
                    await trio.sleep(0.005)
            yield stack, client, connections


async def tell_much(stack: Stack) -> None:
    ring = stack.gateway.feed.ring
    for _ in range(MUCH // len(LINE) // 200):
        before = ring.last
        for _ in range(200):
            LOG.warning(LINE)
        with trio.fail_after(patient(10)):
            while ring.last < before + 200:  # noqa: ASYNC110 - readers are told, nobody else
                await trio.sleep(0.005)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_one_that_takes_nothing_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    async with reading_nothing(monkeypatch, is_tls=is_tls) as (stack, _, connections):
        await tell_much(stack)
        assert len(connections) == 1
        stack.gateway.begin_shutdown()
        with trio.fail_after(patient(2)):  # of a grace of 5 s
            while len(connections):  # noqa: ASYNC110 - known to the server only
                await trio.sleep(0.01)


async def test_one_that_was_too_slow_is_told_so_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reading_nothing(monkeypatch) as (stack, client, _):
        await tell_much(stack)
        # With the tiny one its system and the server's may take 45 s to get going again.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        data, names = b"", list[str]()
        with trio.fail_after(patient(30)):
            while "behind" not in names or names[-1] != "snapshot":
                data += await client.receive_some(MIB)
                whole, _, _ = data.rpartition(b"\n\n")
                found = events_in(whole.partition(b"data: ")[2].partition(b"\n\n")[2])
                names = [event.name for event in found]
        assert names.index("behind") == len(names) - 2
        (behind, snapshot) = found[-2:]
        assert behind.data == {
            "reason": "this reader was too slow; what follows is all that there is now"
        }
        assert snapshot.data["run"] == stack.gateway.feed.run_id
        numbers = [number_of(event) for event in found[:-2]]
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
        assert number_of(snapshot) > numbers[-1] + 1
        page = (await stack.get("/metrics")).content.decode()
        assert "trio_gateway_feed_readers_behind_total 1.0\n" in page
        missed = number_of(snapshot) - numbers[-1]
        assert f"trio_gateway_feed_events_dropped_total {missed}.0\n" in page


def number_of(event: Event) -> int:
    return int(event.id.rpartition("-")[2])


@pytest.mark.slow
async def test_ten_thousand_requests_with_one_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory is flat from the moment on in which the ring and the memory of requests are full."""
    body = chat()
    post = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    request = post.encode() + body
    sizes = list[int]()

    async def ask(port: int, count: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(count):
                await stream.send_all(request)
                answer = await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                while b"}" not in answer.partition(b"\r\n\r\n")[2]:
                    answer += await stream.receive_some()

    async with reading_nothing(monkeypatch) as (stack, _, connections):
        async with served(stack.gateway, LIMITS) as port:
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(ask, port, 500)
                for remembered in (stack.engines.requests, stack.engines.exchanges):
                    remembered.clear()
                sizes.append(psutil.Process().memory_info().rss)
        feed, ring = stack.gateway.feed, stack.gateway.feed.ring
        with trio.fail_after(patient(10)):
            # The last of them are still to be told. Some may have been too many at once.
            while ring.last + feed.missed <= 10_000:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert ring.bytes <= BYTES_MAX
        assert len(connections) == 1
        stack.gateway.begin_shutdown()
    assert sizes[-1] - sizes[1] < 2 * MIB, [size // 1024 for size in sizes]
