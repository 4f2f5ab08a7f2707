"""A machine that sleeps until a request wants its engine: real sockets, real commands."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.support.asking import CHAT, Clock, chat, error_of
from tests.support.fakes import FakeEngines
from tests.support.schema_values import config, model, variant
from tests.support.sleeping_box import MAC, SleepingBox, sleeping_box
from tests.support.sockets import HOST
from tests.support.stack import Stack
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, EngineTimeouts
from trio_gateway.config.site_schema import SiteOptions
from trio_gateway.config.wake_schema import WakeOnLan
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.remote import RemoteEngine, RemoteKind
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.waking.machine import SEND_AGAIN_S, SleepingMachine
from trio_gateway.magic_packet import magic_packet

KEY = VariantKey("m", "4096")
log = logging.getLogger(__name__)


class RealClients(FakeEngines):
    """Real clients; processes are real only where a command is to be run."""

    def __init__(self, ledger: LedgerFile | None, *, runs_commands: bool) -> None:
        super().__init__()
        self._runs_commands, self._ledger = runs_commands, ledger

    def manager(self, given: Any) -> EngineManager:
        launch = None if self._runs_commands else self.launch
        return EngineManager(given, launch=launch, ledger=self._ledger)


# Any answer to any request; it says its pid, and how it ended.
SERVER = """
import os, pathlib, signal, socket, sys
here = pathlib.Path(__file__).parent
def end(*_):
    (here / "ended").write_text("by SIGTERM")
    sys.exit()
signal.signal(signal.SIGTERM, end)
(here / "pid").write_text(str(os.getpid()))
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
while True:
    client, _ = server.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    client.close()
"""


@asynccontextmanager
async def gateway(
    *boxes: SleepingBox, url: str = "", ledger: LedgerFile | None = None, **options: Any
) -> AsyncIterator[Stack]:
    """A gateway with one model `m`, which is on these, or at this URL."""
    if not options:
        options = {"wake": boxes[0].wake}
    urls = tuple(box.site.url for box in boxes) or (url,)
    elsewhere = variant(
        4096, binary="", options=EngineOptions(urls=urls, served_name="theirs", **options),
        timeouts=EngineTimeouts(health_check_s=2.0), parallel=64, memory_bytes=0,
    )  # fmt: skip
    remote = model("m", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
    async with trio.open_nursery() as nursery:
        world = RealClients(ledger, runs_commands="wake_command" in options)
        stack = Stack(nursery, world, config(remote, pools={"remote": 1000}))
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")


async def rows(stack: Stack, path: str) -> list[dict[str, Any]]:
    content = json.loads((await stack.get(f"/gateway/{path}")).content)
    found: list[dict[str, Any]] = content["tickets" if path == "queue" else "engines"]
    return found


async def ask(stack: Stack, statuses: list[int]) -> None:
    statuses.append((await stack.post(CHAT, chat())).status)


# -- waking it --------------------------------------------------------------------------------


async def test_a_request_wakes_it_and_waits_and_says_so() -> None:
    async with sleeping_box() as box, gateway(box) as stack:
        box.may_wake = trio.Event()
        statuses: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, stack, statuses)
            await box.called.wait()
            (waiting,) = await rows(stack, "queue")
            (engine,) = await rows(stack, "engines")
            box.may_wake.set()
        said = waiting["sentence"]
        assert re.fullmatch(r"waits for the machine of m to wake \(\d+ s so far\)", said)
        assert (engine["state"], engine["waking"]) == ("starting", True)
        assert engine["next"] == "takes requests once its machine is awake"
        assert statuses == [200]
        assert box.calls[0] == magic_packet(MAC)
        (engine,) = await rows(stack, "engines")
        assert (engine["state"], engine["waking"]) == ("ready", False)


async def test_one_that_answers_is_never_woken() -> None:
    async with sleeping_box() as box, gateway(box) as stack:
        await box.wake_up()
        assert (await stack.post(CHAT, chat())).status == 200
        box.site.status, box.site.answers["/health"] = 503, (503, {})
        await stack.post("/gateway/models/m/unload", b"")
        assert (await stack.post(CHAT, chat())).status == 503
        assert box.calls == []


async def test_a_request_that_finds_it_asleep_again_wakes_it_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with sleeping_box() as box, gateway(box) as stack:
        assert (await stack.post(CHAT, chat())).status == 200
        box.fall_asleep()
        box.may_wake = trio.Event()
        statuses: list[int] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, stack, statuses)
            await box.called.wait()
            (engine,) = await rows(stack, "engines")
            waiting = stack.manager.overview.tickets()
            box.may_wake.set()
        assert statuses == [200] * 3
        assert engine["waking"]
        # It is known by now how long that takes.
        assert waiting[0].sentence.startswith("waits for the machine of m to wake (")
        assert "so far)" not in waiting[0].sentence
        # That it slept is no failure, neither for the next start nor for whoever reads the log.
        assert stack.manager.overview.backing_off() == {KEY: False}
        assert not stack.manager.overview.load_of("m").has_failed
        assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_what_it_takes_is_remembered_and_is_no_load(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.json")
    async with sleeping_box() as box, gateway(box, ledger=ledger) as stack:
        assert (await stack.post(CHAT, chat())).status == 200
        with trio.fail_after(10):
            while not (entries := ledger.read()):  # noqa: ASYNC110 - it is written in a thread
                await trio.sleep(0.01)
    (entry,) = entries.values()
    assert entry.wake_s is not None
    assert entry.load_s is None


async def test_one_of_several_is_woken_only_if_none_of_them_answers() -> None:
    async with sleeping_box() as one, sleeping_box() as other, gateway(one, other) as stack:
        await other.wake_up()
        for _ in range(2):
            assert json.loads((await stack.post(CHAT, chat())).content)["from"] == "box"
        assert one.calls == []
        other.fall_asleep()
        assert (await stack.post(CHAT, chat())).status == 200
        assert one.calls[0] == magic_packet(MAC)
        assert CHAT in one.site.asked


async def test_lists_and_explanations_let_it_sleep() -> None:
    async with sleeping_box() as box, gateway(box) as stack:
        for path in ("/v1/models", "/v1/models/m", "/gateway/models", "/health", "/metrics"):
            await stack.get(path)
        assert (await stack.post("/gateway/explain", chat())).status == 200
        assert await rows(stack, "engines") == []
        assert (box.calls, box.site.asked) == ([], [])


async def test_it_is_asked_nothing_while_no_request_is_under_way() -> None:
    async with sleeping_box() as box:
        await box.wake_up()
        options = EngineOptions(urls=(box.site.url,), wake=box.wake, health_interval_s=0.0)
        client = RemoteEngine(box.site.url, options)
        assert (await client.check_health(2.0)).ok
        assert box.site.asked == ["/health"]
        assert "may sleep" in (await client.check_health(2.0)).detail
        assert box.site.asked == ["/health"]
        async with client.forward_request("POST", CHAT, [], chat()):
            assert (await client.check_health(2.0)).ok
        assert box.site.asked == ["/health", CHAT, "/health"]
        await client.aclose()


# -- by a command -----------------------------------------------------------------------------


def calling(box: SleepingBox) -> tuple[str, ...]:
    code = f"import socket; socket.socket(2, 2).sendto(b'up', ('{HOST}', {box.call_port}))"
    return sys.executable, "-S", "-c", code


@pytest.mark.processes
async def test_a_command_wakes_it() -> None:
    async with sleeping_box() as box, gateway(box, wake_command=calling(box)) as stack:
        assert (await stack.post(CHAT, chat())).status == 200
        assert box.calls == [b"up"]


@pytest.mark.processes
async def test_a_command_that_serves_runs_until_the_engine_is_stopped(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, 0))
        port = held.getsockname()[1]
        command = (sys.executable, "-S", str(script), str(port))
        async with gateway(url=f"http://{HOST}:{port}", wake_command=command) as stack:
            for _ in range(2):
                assert (await stack.post(CHAT, chat())).status == 200
            pid = int((tmp_path / "pid").read_text())
            assert psutil.pid_exists(pid)
            (engine,) = stack.manager.overview.engines_of("m")
            await stack.post("/gateway/models/m/unload", b"")
            with trio.fail_after(10):
                await engine.gone.wait()
            assert (tmp_path / "ended").read_text() == "by SIGTERM"
            assert not psutil.pid_exists(pid)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/bin/sh", "-c", "echo no such box; exit 3"), "/bin/sh exited with code 3"),
        (("/no/such/wake",), "/no/such/wake does not exist"),
    ],
)
async def test_a_command_that_fails_says_how(command: tuple[str, ...], why: str) -> None:
    async with sleeping_box() as box, gateway(box, wake_command=command) as stack:
        answer = await stack.post(CHAT, chat())
        assert answer.status == 502
        error = error_of(answer)
        assert "wake_command" in error["message"]
        assert why in error["message"]
        assert ("no such box" in str(error)) == ("sh" in command[0])


# -- if it does not wake ----------------------------------------------------------------------


class _Asleep(RemoteKind):
    """Nothing has answered at the first look."""

    def client(self, base_url: str, options: EngineOptions) -> RemoteEngine:
        client = super().client(base_url, options)
        assert client.sleep is not None
        client.sleep.last = f"{base_url}: nothing answers there"
        client.sleep.must_wake.set()
        return client


@asynccontextmanager
async def opened(options: EngineOptions) -> AsyncIterator[EngineClient]:
    told: list[str] = []
    machine = SleepingMachine(options, FakeEngines().launch, lambda: told.append("it sleeps"))
    client = await machine.open_client(_Asleep(), options)
    async with machine.open([], env={}, workdir=Path("/"), log=log):
        yield client
    assert told == ["it sleeps"]
    await client.aclose()


async def test_one_that_does_not_wake_in_time_is_told_with_what_was_tried(
    autojump_clock: Clock,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((HOST, 0))
        udp.setblocking(False)
        port = udp.getsockname()[1]
        options = EngineOptions(
            urls=("http://gpu:8080",), wake=WakeOnLan(MAC, HOST, port), wake_timeout_s=61.0
        )
        begun = trio.current_time()
        with pytest.raises(StartFailed) as caught:
            async with opened(options):
                await trio.sleep_forever()
        assert trio.current_time() - begun == pytest.approx(61.0)
        sent = 1 + int(61 / SEND_AGAIN_S)
        assert [udp.recv(2048) for _ in range(sent)] == [magic_packet(MAC)] * sent
        with pytest.raises(BlockingIOError):
            udp.recv(2048)
    assert caught.value.timed_out
    assert str(caught.value) == (
        "its machine did not wake within 61 s (wake_timeout): http://gpu:8080: nothing answers "
        f"there; {sent} magic packets were sent to {MAC} (UDP, {HOST}:{port}); check that "
        "Wake-on-LAN is on in its firmware and for its network card, that `broadcast` reaches its "
        "network, and that the server starts with it"
    )


async def test_packets_that_cannot_be_sent_are_told(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing can be sent to an address of this kind.
    options = EngineOptions(urls=("http://gpu",), wake=WakeOnLan(MAC, "0.0.0.0", 0))
    with pytest.raises(StartFailed, match=r"0 magic packets were sent to .* could not always be"):
        async with opened(options):
            await trio.sleep_forever()
    assert len([r for r in caplog.records if "no magic packet can be sent" in r.getMessage()]) == 1


async def test_no_more_packets_are_sent_once_it_answers(autojump_clock: Clock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((HOST, 0))
        udp.setblocking(False)
        wake = WakeOnLan(MAC, HOST, udp.getsockname()[1])
        async with opened(EngineOptions(urls=("http://gpu",), wake=wake)) as client:
            await trio.sleep(1.5 * SEND_AGAIN_S)
            assert client.sleep is not None
            client.sleep.awake.set()
            await trio.sleep(1000.0)
        assert [udp.recv(2048), udp.recv(2048)] == [magic_packet(MAC)] * 2
        with pytest.raises(BlockingIOError):
            udp.recv(2048)


async def test_of_several_machines_one_after_the_other_is_woken(autojump_clock: Clock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((HOST, 0))
        udp.setblocking(False)
        macs = (MAC, "02:00:00:00:00:02")
        sites = tuple(
            SiteOptions(url=f"http://gpu{n}", wake=WakeOnLan(mac, HOST, udp.getsockname()[1]))
            for n, mac in enumerate(macs)
        )
        urls = tuple(site.url for site in sites)
        options = EngineOptions(urls=urls, sites=sites, wake_timeout_s=1.5 * SEND_AGAIN_S)
        async with opened(options) as client:
            await trio.sleep(2 * SEND_AGAIN_S)
            assert client.sleep is not None
            client.sleep.awake.set()
            await trio.sleep(1000.0)
        one, other = map(magic_packet, macs)
        assert [udp.recv(2048) for _ in range(3)] == [one, one, other]
