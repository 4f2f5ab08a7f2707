"""Other addresses while requests run: the new ones are opened before the old ones are closed."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.support.asking import CHAT, DONE, EVENT, chat
from tests.support.fakes import FakeEngines
from tests.support.schema_values import config, model
from tests.support.tls_files import client_context, write_certificate
from trio_gateway.config.access_schema import TlsConfig, UnixAddress
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.schema import GatewayConfig, ListenAddress
from trio_gateway.server import reloading
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer

HOST = "127.0.0.1"


class Served:
    """A gateway with fake engines on real sockets, whose configuration may be another one."""

    def __init__(self, gateway: Gateway, engines: FakeEngines, ports: list[int]) -> None:
        self.gateway, self.engines, self.ports = gateway, engines, ports
        self.next: GatewayConfig

    async def reload(self, **server: Any) -> list[str]:
        self.next = configured(**server)
        return [*(await self.gateway.reloader.reload("a test")).changes]


def configured(**server: Any) -> GatewayConfig:
    return config(model("m"), **{"shutdown_grace_s": 0.2, **server})


def at(*ports: int, host: str = HOST) -> tuple[ListenAddress, ...]:
    return tuple(ListenAddress(host, port) for port in ports)


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, **server: Any) -> AsyncIterator[Served]:
    engines, given = FakeEngines(), configured(**{"listen": at(0), **server})
    gateway = Gateway(given, engines.manager(given))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(GatewayServer(gateway).run)
        ports = [address.port for address in addresses if isinstance(address, ListenAddress)]
        served = Served(gateway, engines, ports)
        monkeypatch.setattr(reloading, "_read", lambda source: (served.next, ()))
        with trio.fail_after(20):
            yield served
        gateway.end_now("the test is over")


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        port: int = found.getsockname()[1]
        return port


async def answers(port: int, host: str = HOST) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            response = await client.get(f"http://{host}:{port}/health")
        except httpx.ConnectError:
            return False
        return response.status_code == 200


async def test_a_stream_goes_on_where_it_came_and_new_clients_come_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(monkeypatch) as served, httpx.AsyncClient(trust_env=False) as client:
        (old,), new = served.ports, free_port()
        served.engines.scripts = [[EVENT, 0.4, EVENT, DONE]]
        url = f"http://{HOST}:{old}{CHAT}"
        async with client.stream("POST", url, content=chat(stream=True)) as response:
            pieces = response.aiter_bytes()
            got = await anext(pieces)
            assert await served.reload(listen=at(new)) == ["~ server: listen_v4"]
            assert [await answers(port) for port in (old, new)] == [False, True]
            got += b"".join([piece async for piece in pieces])
        assert got == EVENT * 2 + DONE
        with pytest.raises(httpx.TransportError):  # its connection was not kept
            await client.get(f"http://{HOST}:{old}/health")
        assert await served.reload(listen=at(old, new)) == ["~ server: listen_v4"]
        assert [await answers(port) for port in (old, new)] == [True, True]


async def test_an_address_that_cannot_be_had_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = UnixAddress(tmp_path / "no" / "folder")
    no_certificate = TlsConfig(certificate=tmp_path, key=tmp_path)
    async with serving(monkeypatch) as served:
        with socket.create_server((HOST, 0)) as holder:
            taken, other = holder.getsockname()[1], free_port()
            for server in (
                {"listen": at(other, taken)},
                {"listen": at(other), "listen_unix": (wrong,)},
                {
                    "listen": at(other),
                    "queue_limit": 3,
                    "tls": no_certificate,
                },
            ):
                with pytest.raises(ConfigError, match="cannot"):
                    await served.reload(**server)
                assert served.gateway.config.server.queue_limit != 3
                assert [await answers(p) for p in (*served.ports, other)] == [True, False]
        assert served.gateway.reloader.mistakes
        assert await served.reload(listen=at(*served.ports)) == ["~ server: listen_v4"]


async def test_a_port_may_go_to_all_addresses_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both cannot listen at a time: the old one is back at once if the new one fails."""
    port = free_port()
    async with serving(monkeypatch, listen=at(port)) as served:
        await served.reload(listen=at(port, host="0.0.0.0"))
        assert [await answers(port), await answers(port, "127.0.0.2")] == [True, True]
        await served.reload(listen=at(port))
        assert [await answers(port), await answers(port, "127.0.0.2")] == [True, False]
        with socket.create_server((HOST, 0)) as holder:
            wanted = (*at(port, host="0.0.0.0"), *at(holder.getsockname()[1]))
            with pytest.raises(ConfigError, match="is held by"):
                await served.reload(listen=wanted)
        assert [await answers(port), await answers(port, "127.0.0.2")] == [True, False]


async def test_tls_comes_and_goes_on_the_same_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ca, port = trustme.CA(), free_port()
    async with serving(monkeypatch, listen=at(port)) as served:
        await served.reload(listen=at(port), tls=write_certificate(ca, tmp_path))
        verify = client_context(ca)
        async with httpx.AsyncClient(verify=verify, trust_env=False) as client:
            assert (await client.get(f"https://localhost:{port}/health")).status_code == 200
        await served.reload(listen=at(port))
        assert await answers(port)


async def test_a_socket_file_comes_changes_and_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    async with serving(monkeypatch) as served:
        for mode in (0o600, 0o666):
            await served.reload(listen_unix=(UnixAddress(path, mode),))
            assert stat.S_IMODE(path.stat().st_mode) == mode
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("http://gateway/health")).status_code == 200
        await served.reload(listen=at(0))
        assert not path.exists()


async def test_limits_hold_for_those_who_come_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as served:
        limits = served.gateway.config.server.limits
        assert limits.max_header_bytes > 4000
        small = type(limits)(max_header_bytes=1000)
        assert await served.reload(listen=at(0), limits=small) == ["~ server: max_header_size"]
        async with httpx.AsyncClient(trust_env=False) as client:
            url, headers = f"http://{HOST}:{served.ports[0]}/health", {"x": "y" * 3000}
            assert (await client.get(url, headers=headers)).status_code == 431


async def test_a_shutdown_ends_what_is_left_of_old_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(monkeypatch) as served, httpx.AsyncClient(trust_env=False) as client:
        served.engines.scripts = [[EVENT, 60.0, DONE]]
        url = f"http://{HOST}:{served.ports[0]}{CHAT}"
        async with client.stream("POST", url, content=chat(stream=True)) as response:
            pieces = response.aiter_bytes()
            await anext(pieces)
            await served.reload(listen=at(free_port()))
            served.gateway.begin_shutdown()
            rest = b"".join([piece async for piece in pieces])
            assert b"error" in rest
            assert DONE not in rest
