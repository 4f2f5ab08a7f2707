"""A large upload through a gateway process to an engine process: what it costs in memory."""

from __future__ import annotations

import json
import socket
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.forms import part
from tests.support.harness import GatewayProcess, configuration, fake_model, running_gateway

SIZE = 200 * 1024**2
MAY_ADD = 20 * 1024**2
BLOCK = bytes(range(256)) * 1024

# The gateway's command, with engines of a type that takes forms.
SERVE_FORMS = (
    "from trio_gateway.engine.clients.llamacpp import LlamaCppKind\n"
    "LlamaCppKind.endpoints |= {'audio/transcriptions'}\n"
    "import sys\n"
    "from trio_gateway.main import main\n"
    "sys.argv[1:] = ['serve']\n"
    "main()\n"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = configuration(fake_model("whisper"), max_body_size='"1GiB"')
    folder = tmp_path_factory.mktemp("uploads")
    with running_gateway(folder, config, command=(sys.executable, "-c", SERVE_FORMS)) as running:
        upload(running, [part("model", b"whisper"), b"--bound--\r\n"])  # its engine runs, then
        yield running


def upload(gateway: GatewayProcess, pieces: list[bytes]) -> dict[str, object]:
    """Send a form, and read what the engine says that it got."""
    url = urlsplit(gateway.base_url)
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "Content-Type: multipart/form-data; boundary=bound\r\n"
        f"Content-Length: {sum(map(len, pieces))}\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port), timeout=60) as client:
        client.sendall(head.encode())
        for piece in pieces:
            client.sendall(piece)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer[:1000]
    said: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return said


class PeakMemory:
    """How much a process's memory grew at most while the block ran, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, threading.Event()
        self._before = process.memory_info().rss
        self.added = 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.added = max(self.added, self._process.memory_info().rss - self._before)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("model", ["first", "last"])
def test_200_mib_add_less_than_20_mib(gateway: GatewayProcess, model: str, tmp_path: Path) -> None:
    name = part("model", b"whisper")
    head, _, tail = part("file", b"@", '; filename="a.wav"').partition(b"@")
    file = [head, *[BLOCK] * (SIZE // len(BLOCK)), tail]
    pieces = [name, *file] if model == "first" else [*file, name]
    pieces.append(b"--bound--\r\n")
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    with PeakMemory(psutil.Process(gateway.process.pid)) as peak:
        said = upload(gateway, pieces)
    print(f"`model` {model}: {peak.added / 1024**2:.1f} MiB more")
    assert said == {"text": f"{sum(map(len, pieces))} bytes", "crc": crc}
    assert peak.added < MAY_ADD
