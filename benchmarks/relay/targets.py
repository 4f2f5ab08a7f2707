"""The processes that are measured, each with the listening socket that it is reached by.

A proxy that is a module of ours gets its socket from here, already listening: a client that
connects before it runs just waits.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import trustme

from benchmarks.relay import fake_engine
from benchmarks.relay.client import Address
from benchmarks.relay.forms import MODEL, Form, Wire
from tests.support.harness import (
    configuration,
    free_port,
    lua_array,
    lua_string,
    model,
    running_gateway,
)
from tests.support.patience import eventually

RAW, OURS, SWAP = "raw", "trio-gateway", "llama-swap"
PROXIES = {
    RAW: "trio_proxy",
    "cycle": "trio_proxy",
    "asgi": "hypercorn_proxy",
    "quart": "hypercorn_proxy",
}
START_S = 20.0
END_S = 10.0
ENGINE = Path(fake_engine.__file__)


@dataclass(frozen=True)
class Target:
    """`pid` is None if there is no process between the client and the engine."""

    name: str
    address: Address
    pid: int | None

    def cpu_s(self) -> float:
        """Of the process itself, without its children."""
        if self.pid is None:
            return 0.0
        if platform.system() == "Linux":
            # Its clock counts nanoseconds, and what /proc says are hundredths of a second.
            return time.clock_gettime(~self.pid << 3 | 2)
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        return psutil.Process(self.pid).memory_info().rss / 1e6 if self.pid else 0.0


class Field:
    """Starts targets in front of one engine, and ends them with the block that it is entered by."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends = ExitStack()
        self._authority = trustme.CA()
        self._started = 0

    def __enter__(self) -> Field:
        listener, address = self._listen(Wire.TCP)
        self._engine = address
        self._run(listener, str(ENGINE))
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.close()

    def direct(self) -> Target:
        return Target("direct", self._engine, None)

    def proxy(self, name: str, form: Form) -> Target:
        """One of `PROXIES`."""
        listener, address = self._listen(form.wire)
        more = [] if address.tls is None else ["--certificate", str(self._certificate())]
        program = f"benchmarks.relay.{PROXIES[name]}"
        pid = self._run(listener, "-m", program, name, *self._engine_port(), *more)
        return Target(name, address, pid)

    def aiohttp(self) -> Target | None:
        """None: it is not installed."""
        if importlib.util.find_spec("aiohttp") is None:
            return None
        listener, address = self._listen(Wire.TCP)
        pid = self._run(listener, "-m", "benchmarks.relay.aiohttp_proxy", *self._engine_port())
        return Target("aiohttp", address, pid)

    def llama_swap(self) -> Target | None:
        """None: it is not on PATH."""
        program = shutil.which(SWAP)
        if program is None:
            return None
        file = self._new_folder() / "config.yaml"
        command = f"{sys.executable} {ENGINE} --port ${{PORT}}"
        file.write_text(f'models:\n  "{MODEL}":\n    cmd: {command}\n')
        port = free_port()
        pid = self._start([program, "-config", str(file), "-listen", f"127.0.0.1:{port}"])
        assert eventually(lambda: _answers(port), START_S), f"{SWAP} does not answer"
        return Target(SWAP, Address(port), pid)

    def gateway(self, form: Form, **server: str) -> Target:
        folder = self._new_folder()
        entries = {**form.server, **server}
        file = folder / "socket"
        tls = None
        if form.wire is Wire.UNIX:
            entries["listen_unix"] = lua_string(str(file))
        elif form.wire is Wire.TLS:
            name = lua_string(str(self._certificate()))
            entries["tls"] = f"{{ certificate = {name}, key = {name} }}"
            tls = self._client_context()
        size = fake_engine.TOKENS_A_SLOT
        arguments = lua_array([str(ENGINE), "--ctx-size", str(size * fake_engine.SLOTS)])
        arguments = arguments[:-1] + f', "--parallel", "{fake_engine.SLOTS}" }}'
        variant = (
            f"{{ binary = {lua_string(sys.executable)}, args = {arguments}, context = {size} }}"
        )
        config = configuration(model(MODEL, variant), **entries)
        gateway = self._ends.enter_context(running_gateway(folder, config, verbose=False))
        port = int(gateway.base_url.rpartition(":")[2])
        where = Address(file=file) if form.wire is Wire.UNIX else Address(port, tls=tls)
        return Target(OURS, where, gateway.process.pid)

    # -- what they need ----------------------------------------------------------------------

    def _engine_port(self) -> list[str]:
        return ["--engine", str(self._engine.port)]

    def _new_folder(self) -> Path:
        self._started += 1
        folder = self._folder / str(self._started)
        folder.mkdir()
        return folder

    def _listen(self, wire: Wire) -> tuple[socket.socket, Address]:
        if wire is Wire.UNIX:
            file = self._new_folder() / "socket"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(file))
            listener.listen(fake_engine.BACKLOG)
            return listener, Address(file=file)
        listener = socket.create_server(("127.0.0.1", 0), backlog=fake_engine.BACKLOG)
        tls = self._client_context() if wire is Wire.TLS else None
        return listener, Address(listener.getsockname()[1], tls=tls)

    def _client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def _certificate(self) -> Path:
        file = self._folder / "certificate.pem"
        if not file.exists():
            issued = self._authority.issue_cert("localhost", "127.0.0.1")
            issued.private_key_and_cert_chain_pem.write_to_path(file)
        return file

    def _run(self, listener: socket.socket, *arguments: str) -> int:
        """A program of ours, which takes over the socket."""
        with listener:
            number = listener.fileno()
            return self._start(
                [sys.executable, *arguments, "--fd", str(number)], pass_fds=(number,)
            )

    def _start(self, command: list[str], pass_fds: tuple[int, ...] = ()) -> int:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=pass_fds)
        self._ends.callback(_end, process)
        return process.pid


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).is_success
    except httpx.TransportError:
        return False
