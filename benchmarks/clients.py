"""Why requests to engines do not go through httpx: the CPU of both ways, in one run.

    python -m benchmarks.clients PORT

Prints one line of JSON, µs of CPU: per chunk of 16 paced streams, per small request, and per
health check, which the control client makes with httpx over a connection of ours.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

import httpx
import trio

from tests.support.harness import chat_body
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine

STREAMS, CHUNKS, REQUESTS = 16, 200, 200
PATH = "/v1/chat/completions"
BODY = json.dumps(chat_body("fake", stream=True, max_tokens=CHUNKS)).encode()


async def cpu_us(work: Callable[[], Awaitable[None]], times: int, events: int) -> float:
    before = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(work)
    return (time.process_time() - before) / events * 1e6


async def main(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    http = httpx.AsyncClient(
        base_url=url, verify=False, trust_env=False, timeout=None, limits=limits
    )
    engine = LlamaCppEngine(url)

    async def stream_httpx() -> None:
        async with http.stream("POST", PATH, content=BODY) as response:
            async for _ in response.aiter_raw():
                pass

    async def stream_exchange() -> None:
        async with engine.forward_request("POST", PATH, (), BODY) as exchange:
            while await exchange.receive():
                pass

    async def ask_httpx() -> None:
        for _ in range(REQUESTS):
            await http.get("/health")

    async def ask_exchange() -> None:
        for _ in range(REQUESTS):
            async with engine.forward_request("GET", "/health", (), b""):
                pass

    async def check_health() -> None:
        for _ in range(REQUESTS):
            await engine.check_health(5)

    chunks = STREAMS * CHUNKS
    results: dict[str, list[float]] = {}
    for _ in range(3):
        for name, work, times, events in (
            ("chunk_httpx", stream_httpx, STREAMS, chunks),
            ("chunk_exchange", stream_exchange, STREAMS, chunks),
            ("request_httpx", ask_httpx, 1, REQUESTS),
            ("request_exchange", ask_exchange, 1, REQUESTS),
            ("health_check", check_health, 1, REQUESTS),
        ):
            results.setdefault(name, []).append(await cpu_us(work, times, events))
    await engine.aclose()
    await http.aclose()
    print(json.dumps({name: min(values) for name, values in results.items()}))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
