"""A cheap HTTP client that loads one URL and prints what it measured, as one line of JSON.

    python -m benchmarks.load PORT CLIENTS REQUESTS CHUNKS MODEL

CHUNKS 0 asks for an answer in one piece. Each client keeps its connection, as real ones do.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

TIMEOUT_S = 60


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def request_bytes(model: str, chunks: int) -> bytes:
    body: dict[str, Any] = {
        "model": model,
        "stream": chunks > 0,
        "max_tokens": chunks or 1,
        "messages": [{"role": "user", "content": "x" * 200}],
    }
    encoded = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(encoded)}\r\n\r\n"
    return head.encode() + encoded


class Client(asyncio.Protocol):
    """One connection; `ask` sends one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.data, self.first_byte_at = b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.first_byte_at and (b"data:" in self.data or b"\r\n\r\n{" in self.data):
            self.first_byte_at = time.perf_counter()
        head, _, rest = self.data.partition(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            done = len(rest) >= int(lower[at + 15 :].split(b"\r\n")[0])
        else:
            done = data.endswith(b"0\r\n\r\n")
        if done and not self.answered.done():
            self.answered.set_result(None)

    async def ask(self, request: bytes) -> tuple[float, int]:
        """Seconds to the first byte of the body, and the number of events."""
        assert self.transport is not None
        self.data, self.first_byte_at = b"", 0.0
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self.transport.write(request)
        await asyncio.wait_for(self.answered, TIMEOUT_S)
        assert self.data.startswith(b"HTTP/1.1 200"), self.data[:300]
        return self.first_byte_at - begun, self.data.count(b"data:")


async def main(port: int, clients: int, requests: int, chunks: int, model: str) -> None:
    request, left = request_bytes(model, chunks), requests
    firsts: list[float] = []
    events = 0

    async def work() -> None:
        nonlocal left, events
        client: Client | None = None
        while left > 0:
            left -= 1
            if client is None or client.lost:
                loop = asyncio.get_running_loop()
                _, client = await loop.create_connection(Client, "127.0.0.1", port)
            first, count = await client.ask(request)
            firsts.append(first)
            events += count
        if client is not None and client.transport is not None:
            client.transport.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    firsts.sort()
    result = {"p50_ms": percentile(firsts, 0.5) * 1e3, "p99_ms": percentile(firsts, 0.99) * 1e3}
    print(json.dumps({**result, "requests": requests, "events": events}))


if __name__ == "__main__":
    port_, clients_, requests_, chunks_ = (int(word) for word in sys.argv[1:5])
    asyncio.run(main(port_, clients_, requests_, chunks_, sys.argv[5]))
