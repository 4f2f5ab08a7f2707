"""Why requests to engines do not go through httpx: the CPU of both ways, in one run.

    python -m benchmarks.clients PORT

Prints one line of JSON, µs of CPU: per chunk of 16 paced streams, per small request over a kept
connection and over a fresh one, and per health check. `raw` is what trio's sockets and httptools
cost with nothing around them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

import httptools
import httpx
import trio

from tests.support.harness import chat_body
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine

STREAMS, CHUNKS, REQUESTS = 16, 200, 200
PATH = "/v1/chat/completions"
BODY = json.dumps(chat_body("fake", stream=True, max_tokens=CHUNKS)).encode()


class Raw:
    """One answer, of which nothing but its end matters."""

    def __init__(self) -> None:
        self.complete = False
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


async def ask_raw(sock: trio.socket.SocketType, request: bytes) -> None:
    await sock.send(request)
    answer = Raw()
    while not answer.complete:
        answer.parser.feed_data(await sock.recv(65536))
        answer.pieces.clear()


async def cpu_us(work: Callable[[], Awaitable[None]], times: int, events: int) -> float:
    before = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(work)
    return (time.process_time() - before) / events * 1e6


async def main(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=None)
    http = httpx.AsyncClient(
        base_url=url, verify=False, trust_env=False, timeout=None, limits=limits
    )
    engine, fresh = LlamaCppEngine(url), LlamaCppEngine(url)
    fresh.idle.most = 0
    head = b"%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    asked, streamed = (
        head % (b"GET /health", 0),
        head % (b"POST " + PATH.encode(), len(BODY)) + BODY,
    )

    async def stream_httpx() -> None:
        async with http.stream("POST", PATH, content=BODY) as response:
            async for _ in response.aiter_raw():
                pass

    async def stream_exchange() -> None:
        async with engine.forward_request("POST", PATH, (), BODY) as exchange:
            while await exchange.receive():
                pass

    async def stream_raw() -> None:
        with trio.socket.socket() as sock:
            await sock.connect(("127.0.0.1", port))
            await ask_raw(sock, streamed)

    async def request_raw() -> None:
        with trio.socket.socket() as sock:
            await sock.connect(("127.0.0.1", port))
            for _ in range(REQUESTS):
                await ask_raw(sock, asked)

    async def ask_httpx() -> None:
        for _ in range(REQUESTS):
            await http.get("/health")

    async def ask_kept() -> None:
        for _ in range(REQUESTS):
            async with engine.forward_request("GET", "/health", (), b"") as exchange:
                await exchange.receive()

    async def ask_fresh() -> None:
        for _ in range(REQUESTS):
            async with fresh.forward_request("GET", "/health", (), b"") as exchange:
                await exchange.receive()

    async def check_health() -> None:
        for _ in range(REQUESTS):
            await engine.check_health(5)

    chunks = STREAMS * CHUNKS
    results: dict[str, list[float]] = {}
    for _ in range(3):
        for name, work, times, events in (
            ("chunk_httpx", stream_httpx, STREAMS, chunks),
            ("chunk_exchange", stream_exchange, STREAMS, chunks),
            ("chunk_raw", stream_raw, STREAMS, chunks),
            ("request_httpx", ask_httpx, 1, REQUESTS),
            ("request_kept", ask_kept, 1, REQUESTS),
            ("request_fresh", ask_fresh, 1, REQUESTS),
            ("request_raw", request_raw, 1, REQUESTS),
            ("health_check", check_health, 1, REQUESTS),
        ):
            results.setdefault(name, []).append(await cpu_us(work, times, events))
    await engine.aclose()
    await fresh.aclose()
    await http.aclose()
    print(json.dumps({name: min(values) for name, values in results.items()}))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
