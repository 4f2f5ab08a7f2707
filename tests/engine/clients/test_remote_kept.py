"""Connections with TLS that serve again: one handshake for many requests."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.support.cancelling import cancel_at_each_step
from tests.support.sockets import OK, read_request, serving
from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.remote import RemoteEngine
from trio_gateway.engine.errors import EngineDisconnected, EngineUnreachable

ANSWER = OK + b"Content-Length: 2\r\n\r\nok"


class HeldBack(trio.abc.Stream):
    """What is sent goes out in one piece with `flush`, so that it is also received in one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._held = stream, bytearray()

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        self._held += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await self.flush()
        return await self._stream.receive_some(max_bytes)

    async def flush(self) -> None:
        data, self._held = bytes(self._held), bytearray()
        await self._stream.send_all(data)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Site:
    """Answers each request with the next of these, each a record of its own, all sent at once; None
    closes the connection instead."""

    def __init__(self, tls: ssl.SSLContext, *answers: tuple[bytes, ...] | None) -> None:
        self.tls, self.answers = tls, [*answers]
        self.counts: list[int] = []  # requests of each connection
        self.hold = trio.Event()  # before the next answer
        self.hold.set()
        self.ended = 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        held = HeldBack(stream)
        secure: Any = trio.SSLStream(held, self.tls, server_side=True)
        number = len(self.counts)
        self.counts.append(0)
        with contextlib.suppress(trio.BrokenResourceError):
            while await secure.receive_some(1):
                await read_request(secure)
                self.counts[number] += 1
                await self.hold.wait()
                records = self.answers.pop(0) if self.answers else (ANSWER,)
                if records is None:
                    break
                for record in records:
                    await secure.send_all(record)
                await held.flush()
        self.ended += 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    issuer, file = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    issuer.cert_pem.write_to_path(file)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issuer.issue_cert("127.0.0.1").configure_cert(server)
    return server, file


Trust = tuple[ssl.SSLContext, Path]


@asynccontextmanager
async def engine(site: Site, trust: Trust) -> AsyncIterator[RemoteEngine]:
    async with serving(site) as port:
        url = f"https://127.0.0.1:{port}"
        client = RemoteEngine(url, EngineOptions(urls=(url,), ca_file=trust[1]))
        yield client
        await client.aclose()
        assert not len(client.idle)
        with trio.fail_after(10):
            while site.ended < len(site.counts):
                await trio.testing.wait_all_tasks_blocked(0.01)


async def post(client: RemoteEngine) -> bytes:
    with trio.fail_after(10):
        async with client.forward_request("POST", "/v1/x", [], b"{}") as exchange:
            return await exchange.receive()


async def test_many_requests_and_questions_need_one_handshake(authority: Trust) -> None:
    site = Site(authority[0])
    async with engine(site, authority) as client:
        for _ in range(3):
            assert await post(client) == b"ok"
            await client.ask("POST", "/v1/y", 10, b"{}")
        assert site.counts == [6]


async def test_one_that_was_closed_is_not_used(authority: Trust) -> None:
    site = Site(authority[0], (ANSWER,), None, (ANSWER,), None)
    async with engine(site, authority) as client:
        for _ in range(3):
            assert await post(client) == b"ok"
        assert site.counts == [2, 2, 1]  # each second one was sent again
        assert client.sites.state(client.sites.all[0]).works


@pytest.mark.parametrize("stray", [b"\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"])
async def test_one_with_a_record_that_came_with_the_answer_is_not_used(
    authority: Trust, stray: bytes
) -> None:
    """The next answer would be taken for another's."""
    site = Site(authority[0], (ANSWER, stray))
    async with engine(site, authority) as client:
        assert [await post(client), await post(client)] == [b"ok", b"ok"]
        assert site.counts == [1, 1]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has none")
async def test_a_host_that_hears_nothing_of_a_request_is_given_up_as_soon_as_a_fresh_one_would_be(
    authority: Trust,
) -> None:
    """Without a word from it: the system breaks the connection, and the request is sent again."""

    def limit_ms() -> int:
        return transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    site = Site(authority[0])
    async with engine(site, authority) as client:
        async with client.forward_request("POST", "/v1/x", [], b"{}") as exchange:
            transport = exchange.transport
            assert limit_ms() == 0  # an upload may be taken slowly
        async with trio.open_nursery() as nursery:
            site.hold = trio.Event()
            nursery.start_soon(post, client)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert limit_ms() == client.options.connect_timeout_s * 1000
            site.hold.set()
        assert limit_ms() == 0  # a busy client may read slowly
        assert site.counts == [2]


async def test_a_site_that_is_gone_is_told_as_ever(authority: Trust) -> None:
    site = Site(authority[0])
    async with engine(site, authority) as client:
        await post(client)
        site.answers = [None] * 2
        with pytest.raises(EngineUnreachable, match="none of its URLs works"):
            await post(client)
        assert site.counts == [2, 1]
        client.abort_all(EngineDisconnected("it is stopped"))
        with pytest.raises(EngineDisconnected):
            await post(client)


@pytest.mark.parametrize("kept", [0, 1], ids=["over a fresh one", "over a kept one"])
async def test_of_a_cancelled_request_nothing_is_left(authority: Trust, kept: int) -> None:
    site = Site(authority[0])
    async with engine(site, authority) as client:
        client.idle.most = kept

        async def work() -> None:
            with trio.CancelScope(shield=bool(kept)):
                await post(client)
            assert await post(client) == b"ok"

        def check(step: int) -> None:
            assert not len(client.connections), step
            assert len(client.idle) <= kept, step

        assert await cancel_at_each_step(work, check) > 5
