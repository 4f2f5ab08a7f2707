"""Sockets, TLS and socket files, with real files and a real server."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization as s

from tests.support.fakes import FakeEngines
from tests.support.schema_values import config, model
from tests.support.tls_files import client_context, write_certificate
from trio_gateway.commands.explanations import ask_gateway
from trio_gateway.commands.gateway_client import place_of
from trio_gateway.commands.gateway_failures import GatewayFailed, Place
from trio_gateway.config.access_schema import AccessConfig, ApiKey, TlsConfig, UnixAddress
from trio_gateway.config.schema import ListenAddress
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer
from trio_gateway.server.http import listening
from trio_gateway.server.http.listeners import ListenError, Opened
from trio_gateway.server.http.tls import POLL_S, Certificate

LOOPBACK = ListenAddress("127.0.0.1", 0)


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def serving(**server: Any) -> AsyncIterator[list[Any]]:
    """A gateway with fake engines on real sockets; yields its addresses."""
    given = config(model("m"), **{"listen": (LOOPBACK,), "shutdown_grace_s": 0.1, **server})
    gateway = Gateway(given, FakeEngines().manager(given))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(GatewayServer(gateway).run)
        with trio.fail_after(20):
            yield addresses
        gateway.end_now("the test is over")


@pytest.mark.parametrize(("host", "key"), [("127.0.0.1", "listen_v4"), ("::1", "listen_v6")])
def test_a_taken_port_is_an_error_that_says_who_has_it_and_what_to_do(host: str, key: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as holder:
        address = ListenAddress(host, holder.getsockname()[1])
        with pytest.raises(ListenError) as raised:
            Opened(address)
    says = f"the port is held by pid {os.getpid()} (python"
    assert str(raised.value).startswith(f"cannot listen on {address}: {says}")
    assert str(raised.value).endswith(f"); stop it or change `{key}`")


# -- socket files ---------------------------------------------------------------------------------


@contextmanager
def listening_on(*unix: UnixAddress) -> Iterator[None]:
    with ExitStack() as stack:
        for address in unix:
            stack.callback(Opened(address).close)
        yield


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_socket_file_has_its_mode_and_goes_with_the_gateway(tmp_path: Path, mode: int) -> None:
    address = UnixAddress(tmp_path / "s", mode)
    before = os.umask(0o022)
    os.umask(before)
    with listening_on(address):
        assert stat.S_IMODE(address.path.stat().st_mode) == mode
    assert not address.path.exists()
    after = os.umask(before)
    assert after == before


def test_the_file_of_a_gateway_that_was_killed_is_replaced(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.path))
        dead.listen()
    with listening_on(address), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address.path))


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with listening_on(address):
        with pytest.raises(
            ListenError, match="is listening there; stop it or change `listen_unix`"
        ):
            Opened(address)
        assert address.path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    address.path.write_text("precious")
    with pytest.raises(ListenError, match="is not a socket"):
        Opened(address)
    assert address.path.read_text() == "precious"


def test_a_later_gateway_s_file_is_left_alone(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with listening_on(address):
        address.path.unlink()
        address.path.write_text("another's")
    assert address.path.exists()


async def test_all_are_bound_or_none(tmp_path: Path) -> None:
    good, bad = UnixAddress(tmp_path / "s"), UnixAddress(tmp_path / "no" / "folder")
    given = config(model("m"), listen=(), listen_unix=(good, bad))
    gateway = Gateway(given, FakeEngines().manager(given))
    with pytest.raises(ListenError, match=r"cannot listen on unix:.*folder"):
        await GatewayServer(gateway).run()
    assert not good.path.exists()


async def test_a_gateway_answers_on_its_socket_file(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    async with serving(listen=(), listen_unix=(address,)) as addresses:
        assert addresses == [address]
        transport = httpx.AsyncHTTPTransport(uds=str(address.path))
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.get("http://localhost/v1/models")
            assert response.json()["data"][0]["id"] == "m"
    assert not address.path.exists()


# -- TLS ------------------------------------------------------------------------------------------


async def serial_of(port: int, context: ssl.SSLContext, name: str = "localhost") -> str:
    """The serial number of the certificate that a new connection gets."""
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", port, ssl_context=context, https_compatible=True
    )
    stream = trio.SSLStream(stream.transport_stream, context, server_hostname=name)
    await stream.do_handshake()
    serial: str = stream.getpeercert()["serialNumber"]
    await trio.aclose_forcefully(stream)
    return serial


async def test_https_is_served_and_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path,
    ca: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tls = write_certificate(ca, tmp_path)
    made = list[Certificate]()

    def make(config: TlsConfig) -> Certificate:
        made.append(Certificate(config))
        return made[0]

    monkeypatch.setattr(listening, "Certificate", make)
    context = client_context(ca)
    async with serving(tls=tls) as (address,):
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            response = await client.get(f"https://localhost:{address.port}/v1/models")
            assert response.json()["data"][0]["id"] == "m"
            assert response.http_version == "HTTP/1.1"
        (certificate,) = made
        first = await serial_of(address.port, context)

        tls.certificate.write_text("not a certificate")
        certificate.reload_if_changed()
        assert "the new TLS certificate is not used" in caplog.text
        assert await serial_of(address.port, context) == first

        (tmp_path / "new").mkdir()
        new = write_certificate(ca, tmp_path / "new")
        new.certificate.replace(tls.certificate)
        certificate.reload_if_changed()  # its key is still the old one: half of a pair
        assert await serial_of(address.port, context) == first
        new.key.replace(tls.key)
        certificate.reload_if_changed()
        assert await serial_of(address.port, context) != first


async def test_the_files_are_looked_at_again_and_again(
    tmp_path: Path, ca: trustme.CA, autojump_clock: object, nursery: trio.Nursery
) -> None:
    certificate = Certificate(write_certificate(ca, tmp_path))
    nursery.start_soon(certificate.watch)
    await trio.sleep(4.5 * POLL_S)
    looked = list[float]()
    certificate.reload_if_changed = lambda: looked.append(trio.current_time())  # type: ignore[method-assign]
    await trio.sleep(4 * POLL_S)
    assert len(looked) == 4
    nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_client_without_tls_harms_nobody(tmp_path: Path, ca: trustme.CA) -> None:
    async with serving(tls=write_certificate(ca, tmp_path)) as (address,):
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert not (await plain.receive_some()).startswith(b"HTTP")
        assert await serial_of(address.port, client_context(ca))


@pytest.mark.parametrize("broken", ["no such file", "another key", "no PEM", "a password"])
def test_files_that_cannot_be_used_end_the_start(
    tmp_path: Path, ca: trustme.CA, broken: str
) -> None:
    tls = write_certificate(ca, tmp_path)
    match broken:
        case "no such file":
            tls.key.unlink()
        case "another key":
            tls.key.write_bytes(ca.issue_cert("x").private_key_pem.bytes())
        case "no PEM":
            tls.certificate.write_text("x")
        case "a password":
            tls.key.write_bytes(encrypted(tls.key.read_bytes()))
    with pytest.raises(ListenError, match=r"cannot use TLS: .*cert.pem"):
        Certificate(tls)


def encrypted(pem: bytes) -> bytes:
    key = s.load_pem_private_key(pem, None)
    return key.private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")
    )


# -- explain --------------------------------------------------------------------------------------


async def test_explain_trusts_the_gateway_s_own_certificate_and_no_other(
    tmp_path: Path, ca: trustme.CA
) -> None:
    tls = write_certificate(ca, tmp_path, "ai.example.org")
    other = tmp_path / "other"
    other.mkdir()
    stranger = write_certificate(ca, other, "ai.example.org")  # of the same authority
    body = b'{"model":"m","prompt":"x"}'
    async with serving(tls=tls) as (address,):
        place = place_of(config(model("m"), listen=(address,), tls=tls).server)
        assert place == Place(f"https://127.0.0.1:{address.port}", certificate=tls.certificate)
        found = await trio.to_thread.run_sync(ask_gateway, place, body)
        assert found is not None
        assert found.model == "m"
        wrong = place._replace(certificate=stranger.certificate)
        with pytest.raises(GatewayFailed, match="has another certificate than"):
            await trio.to_thread.run_sync(ask_gateway, wrong, body)


async def test_explain_asks_through_a_socket_file_with_a_key(tmp_path: Path) -> None:
    keys = (ApiKey(name="a", secret="tg-admin", admin=True),)
    unix = UnixAddress(tmp_path / "s")
    body = b'{"model":"m","prompt":"x"}'
    async with serving(listen_unix=(unix,), access=AccessConfig(api_keys=keys)):
        place = place_of(config(model("m"), listen_unix=(unix,)).server)
        assert place.socket == unix.path
        found = await trio.to_thread.run_sync(ask_gateway, place, body, "tg-admin")
        assert found is not None
        with pytest.raises(GatewayFailed, match="--key-file"):
            await trio.to_thread.run_sync(ask_gateway, place, body)
    assert await trio.to_thread.run_sync(ask_gateway, place, body) is None
