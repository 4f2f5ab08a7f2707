"""Clients that send much and have to wait: what a gateway's process holds of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    running_gateway,
)
from tests.support.patience import eventually

MIB = 1024**2
BODY_BYTES = 12 * MIB
MAX_BYTES = 30 * MIB
KEYS = {"alice": "a-key-of-alice-0123456789", "bob": "a-key-of-bob-0123456789"}


@contextmanager
def gateway_of(tmp_path: Path, **server: str) -> Iterator[GatewayProcess]:
    """Its model loads for longer than any test takes, so everything waits."""
    keys = ", ".join(
        f'{{ name = "{n}", key = "{k}", admin = true }}' for n, k in KEYS.items()
    )  # fmt: skip
    config = configuration(
        fake_model("a", "--load-s", "100", context=100_000_000), max_buffered='"30MiB"',
        api_keys=f"{{ {keys} }}", **server,
    )  # fmt: skip
    with running_gateway(tmp_path, config, verbose=False) as gateway:
        yield gateway


def held(gateway: GatewayProcess) -> dict[str, Any]:
    with gateway.client() as client:
        headers = {"x-api-key": KEYS["alice"]}
        found: dict[str, Any] = client.get("/gateway/queue", headers=headers).json()["held"]
    return found


class Client:
    """One that sends a body of this size, and what it gets within a short time."""

    def __init__(self, gateway: GatewayProcess, name: str, body: bytes, *, chunked: bool) -> None:
        host, _, port = gateway.base_url.removeprefix("http://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-api-key: {KEYS[name]}\r\n"
            f"Content-Type: application/json\r\n{framing}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        try:
            for start in range(0, len(body), MIB):
                piece = body[start : start + MIB]
                self.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.socket.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it was refused before all of it was sent

    def status(self) -> int | None:
        """None while it waits."""
        self.socket.settimeout(0.5)
        try:
            return int(self.socket.recv(65536).split()[1])
        except TimeoutError:
            return None


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_many_large_bodies_take_no_more_than_they_may(tmp_path: Path, chunked: bool) -> None:
    image = "data:image/png;base64," + "A" * BODY_BYTES
    body = chat_body("a")
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": image}}]
    data = json.dumps(body).encode()
    with gateway_of(tmp_path) as gateway, ExitStack() as stack:
        process = psutil.Process(gateway.process.pid)
        before = process.memory_info().rss
        clients, got = [], []
        for name in ("alice", "alice", "bob", "alice", "bob"):
            clients.append(client := Client(gateway, name, data, chunked=chunked))
            stack.enter_context(client.socket)
            got.append(client.status())
        # Alice's second would be more than her half, and with Bob's second it would be too much.
        assert got == [None, 503, None, 503, 503]
        facts = held(gateway)
        assert BODY_BYTES * 2 < facts["buffered_bytes"] < MAX_BYTES
        assert facts["refused"] == 3
        assert process.memory_info().rss - before < 3 * MAX_BYTES
        clients[0].socket.close()
        assert eventually(lambda: held(gateway)["buffered_bytes"] < 1.5 * BODY_BYTES, 5)
        again = Client(gateway, "alice", data, chunked=chunked)
        stack.enter_context(again.socket)
        assert again.status() is None
