"""Importing changes nothing; whoever serves installs what is changed in hypercorn."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hypercorn.trio.run
import pytest
import trio
import trustme
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.utils import LifespanFailureError

from tests.support.fakes import FakeEngines
from tests.support.schema_values import config, model
from trio_gateway import under_hypercorn
from trio_gateway.app import create_app
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.config.schema import ListenAddress
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.install import install
from trio_gateway.stop_signals import StopSignals
from trio_gateway.under_hypercorn import HypercornGateway

# Runs in a fresh process. Whatever an import opened, started or replaced shows at its end.
IMPORT_ALL = """
import importlib.util, logging, os, pkgutil, signal, sys, threading
import hypercorn.trio.run, hypercorn.protocol, hypercorn.protocol.h11, quart_trio, httpx

def all_of(module):
    return {n: id(v) for n, v in vars(module).items() if not n.startswith("__")}

def hypercorn_now():
    names = [n for n in sys.modules if n.partition(".")[0] == "hypercorn"]
    found = {n: all_of(sys.modules[n]) for n in names}
    kinds = [v for n in names for v in vars(sys.modules[n]).values() if isinstance(v, type)]
    return found, {k: all_of(k) for k in kinds if k.__module__.startswith("hypercorn")}

def opened():
    return {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{n}")}

modules, classes = hypercorn_now()
threads, files = threading.active_count(), opened()
handled = {n: signal.getsignal(n) for n in signal.valid_signals()}
loggers = {n: v.level for n, v in logging.root.manager.loggerDict.items()
           if isinstance(v, logging.Logger)}
handlers = list(logging.getLogger().handlers)
NEED_RAY = () if importlib.util.find_spec("ray") else ("trio_gateway.cluster.replica",)
# Ray Serve alone loads it, into a process of its own; with it comes all of Ray, which sets loggers.
OF_RAY = "trio_gateway.cluster.affinity_router"
import trio_gateway
names = [m.name for m in pkgutil.walk_packages(trio_gateway.__path__, "trio_gateway.")
         if m.name not in ("trio_gateway.__main__", OF_RAY, *NEED_RAY)]
for name in names:
    importlib.import_module(name)
assert len(names) > 100, names
after_modules, after_classes = hypercorn_now()
for name, before in modules.items():
    changed = {k for k, v in before.items() if after_modules[name].get(k) != v}
    assert not changed, (name, changed)
for kind, before in classes.items():
    assert after_classes[kind] == before, kind
assert threading.active_count() == threads, threading.enumerate()
assert opened() == files, (files, opened())
assert {n: signal.getsignal(n) for n in signal.valid_signals()} == handled
assert list(logging.getLogger().handlers) == handlers
for name, logger in logging.root.manager.loggerDict.items():
    if isinstance(logger, logging.Logger):
        assert logger.level == loggers.get(name, logging.NOTSET), name
import multiprocessing
assert not multiprocessing.active_children()
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """hypercorn as its package has it, in the test; as it was found, after it."""
    before, create, quic = (
        installed(),
        Config.create_ssl_context,
        vars(hypercorn.trio.run)["UDPServer"],
    )
    put(TCPServer)
    yield
    put(before)
    Config.create_ssl_context = create  # type: ignore[method-assign]
    vars(hypercorn.trio.run)["UDPServer"] = quic


def installed() -> object:
    return vars(hypercorn.trio.run)["TCPServer"]


def put(what: object) -> None:
    vars(hypercorn.trio.run)["TCPServer"] = what


def is_ours(what: object) -> bool:
    return isinstance(getattr(what, "__self__", None), ClientConnections)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_importing_every_module_has_no_effect() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_install_replaces_one_class_of_hypercorn_and_the_last_call_counts() -> None:
    install(ClientConnections(ConnectionLimits()))
    last = ClientConnections(ConnectionLimits())
    install(last)
    assert installed() == last.serve


def test_hypercorn_s_tls_offers_nothing_but_http1(tmp_path: Path) -> None:
    """By itself it offers h2, and so curl and browsers would speak that."""
    cert = trustme.CA().issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    settings = Config.from_mapping(
        certfile=str(tmp_path / "cert.pem"), keyfile=str(tmp_path / "key.pem")
    )
    install(ClientConnections(ConnectionLimits()))
    context = settings.create_ssl_context()
    assert context is not None
    assert chosen(context, ["h2", "http/1.1"]) == "http/1.1"
    assert Config().create_ssl_context() is None


def chosen(context: ssl.SSLContext, offered: list[str]) -> str | None:
    """The protocol of a connection to a server with this context."""
    client_context = ssl.create_default_context()
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.set_alpn_protocols(offered)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return server.selected_alpn_protocol()


async def test_serving_installs_before_hypercorn_looks() -> None:
    engines, given = FakeEngines(), config(model("m"), listen=(ListenAddress("127.0.0.1", 0),))
    gateway = Gateway(given, engines.manager(given))
    assert installed() is TCPServer
    async with trio.open_nursery() as nursery:
        await nursery.start(GatewayServer(gateway).run)
        assert is_ours(installed())
        gateway.begin_shutdown()


@pytest.mark.processes
async def test_the_app_for_the_hypercorn_command_installs_when_its_lifespan_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = config(model("m"))
    monkeypatch.setattr(under_hypercorn, "load_config", lambda path: (given, "of the test"))
    seen: list[object] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, str]:
        return next(messages)

    async def send(message: dict[str, str]) -> None:
        seen.append(installed())

    assert installed() is TCPServer
    await HypercornGateway(StopSignals(), create_app).lifespan(receive, send)
    assert [is_ours(found) for found in seen] == [True, True]


def test_hypercorns_default_worker_is_refused_with_what_to_do() -> None:
    """asyncio's, in which nothing of ours could run."""

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: object) -> None:
        raise AssertionError(message)

    gateway = HypercornGateway(StopSignals(), create_app)
    with pytest.raises(LifespanFailureError, match="--worker-class trio"):
        asyncio.run(gateway.lifespan(receive, send))
