"""Clients that open connections and fall silent, against a gateway with few files."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.harness import (
    HYPERCORN,
    SERVE,
    GatewayProcess,
    configuration,
    fake_model,
    running_gateway,
)
from tests.support.patience import eventually

if sys.platform == "win32":
    pytest.skip("no limit of open files can be set", allow_module_level=True)
import resource

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count
FILES = 128  # the hard limit; 60 at first
BEGUN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SAID = {
    "nothing": b"",
    "75 bytes": BEGUN[:75],
    "a request without its body": BEGUN + b"\r\n{",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def limited(argv: tuple[str, ...]) -> list[str]:
    return ["/bin/sh", "-c", f'ulimit -S -n 60; ulimit -H -n {FILES}; exec "$@"', "sh", *argv]


@contextmanager
def gateway_of(command: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    config = configuration(fake_model("a"))
    if command == "serve":
        argv = limited((*SERVE, str(tmp_path / "gateway.lua")))
        with running_gateway(tmp_path, config, command=argv) as gateway:
            yield gateway
        return
    argv = limited((*HYPERCORN, *command.split()[1:], "trio_gateway.app:app"))
    ready = r"Running on (http://\S+)"
    with running_gateway(tmp_path, config, command=argv, ready=ready) as gateway:
        yield gateway


def opened(gateway: GatewayProcess, said: bytes) -> socket.socket:
    host, _, port = gateway.base_url.removeprefix("http://").rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    with suppress(OSError):
        client.sendall(said)
    return client


@pytest.mark.parametrize(
    "command",
    ["serve", "hypercorn -k trio -b 127.0.0.1:0", "hypercorn -k trio -w 0 -b 127.0.0.1:0"],
)
def test_silent_clients_shut_nobody_out_and_the_log_stays_short(
    tmp_path: Path, command: str
) -> None:
    mine, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if mine < 4 * FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FILES), hard))
    with gateway_of(command, tmp_path) as gateway, ExitStack() as stack:
        before = gateway.lines_so_far()
        for said in SAID.values():
            for _ in range(FILES):
                stack.enter_context(opened(gateway, said))
            with gateway.client() as client:  # a client that pauses in its body has a moment
                assert eventually(lambda: client.get("/health").status_code == 200, 3)
        answer = gateway.chat("a")
        assert answer.status_code == 200, (answer.text, gateway.log)
        lines = gateway.log.splitlines()[before:]
        assert "Traceback" not in "\n".join(lines)
        assert len([line for line in lines if " a:" not in line]) < 20, lines


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux shows it")
def test_the_limit_is_raised_and_engines_have_the_old_one(tmp_path: Path) -> None:
    with gateway_of("serve", tmp_path) as gateway:
        assert gateway.chat("a").status_code == 200
        assert psutil.Process(gateway.process.pid).rlimit(resource.RLIMIT_NOFILE) == (FILES, FILES)
        (engine,) = gateway.engines()
        assert engine.rlimit(resource.RLIMIT_NOFILE) == (60, FILES)


def test_when_no_file_is_left_the_log_says_so_once_and_it_goes_on(tmp_path: Path) -> None:
    """Its files are taken away: as many as it may have are open by then."""
    with gateway_of("serve", tmp_path) as gateway, ExitStack() as stack:
        process = psutil.Process(gateway.process.pid)
        used = process.num_fds()
        process.rlimit(resource.RLIMIT_NOFILE, (used, FILES))
        first = stack.enter_context(opened(gateway, HEALTH))
        gateway.wait_for_line("no connection can be accepted: Too many open files")
        for _ in range(20):
            stack.enter_context(opened(gateway, b""))
        spent_s = sum(process.cpu_times()[:2])
        first.settimeout(1)
        with pytest.raises(TimeoutError):
            first.recv(100)
        assert sum(process.cpu_times()[:2]) - spent_s < 0.3
        assert gateway.log.count("no connection can be accepted") == 1
        assert "Traceback" not in gateway.log
        process.rlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        first.settimeout(20)
        assert first.recv(100).startswith(b"HTTP/1.1 200 ")
