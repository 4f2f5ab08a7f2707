"""Clients that send anything, in any order, and go away at any moment."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path

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

CLIENTS = 6
SEQUENCES_EACH = 25


def post(body: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


ASK = post(json.dumps(chat_body("fast", max_tokens=2)).encode())
STREAM = post(json.dumps(chat_body("slow", max_tokens=200, stream=True)).encode())
UPGRADE = b"GET /v1/models HTTP/1.1\r\nHost: g\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
CHUNKED = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAGMENTS = [
    ASK,
    ASK,
    STREAM,
    ASK[:90],
    post(b"[" * 5000),
    post(b"\xff\x00"),
    b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n",
    b"HEAD /v1/models HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET ?x HTTP/1.1\r\nHost: g\r\n\r\n",
    CHUNKED + b"5\r\n{\r\n",
    CHUNKED + b"ZZ\r\n",
    UPGRADE + b"h2c\r\nHTTP2-Settings: !!!!a\r\n\r\n",
    UPGRADE + b"h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
    UPGRADE + b"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 99999\r\n\r\n"
    + b"x" * 50000,
    b"\x00\xff\r\n\r\n",
    b"x" * 20000,
]


def misbehave(gateway: GatewayProcess, seed: int) -> None:
    choice = random.Random(seed)
    host, port = gateway.base_url.removeprefix("http://").split(":")
    for _ in range(SEQUENCES_EACH):
        try:
            with socket.create_connection((host, int(port)), timeout=0.05) as connection:
                for _ in range(choice.randint(1, 4)):
                    connection.sendall(choice.choice(FRAGMENTS))
                    if choice.random() < 0.5:
                        connection.recv(choice.choice((1, 100, 65536)))
        except OSError:  # refused, reset, timed out: all may be
            continue


@pytest.mark.parametrize("seed", [1, 2])
def test_they_harm_nobody_else_and_leave_nothing_behind(tmp_path: Path, seed: int) -> None:
    config = configuration(
        fake_model("fast"),
        fake_model("slow", engine="presets.engines.llamacpp_secondary"),
        max_body_size='"50KiB"',
        allowed_hosts='{ "g" }',
        shutdown_grace="1",
    )
    with running_gateway(tmp_path, config, verbose=False) as gateway:
        assert gateway.chat("fast").status_code == 200
        assert gateway.chat("slow").status_code == 200
        process = psutil.Process(gateway.process.pid)
        before = process.num_fds()
        clients = [
            threading.Thread(target=misbehave, args=(gateway, seed * 100 + n))
            for n in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert gateway.process.poll() is None
        assert gateway.chat("fast").status_code == 200
        assert gateway.chat("slow").status_code == 200
        # LINGER_S for unfinished uploads, and a little more.
        assert eventually(lambda: process.num_fds() <= before + 2, within_s=8), process.num_fds()
        assert gateway.stop() == 0
