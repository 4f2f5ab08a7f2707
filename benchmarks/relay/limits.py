"""Where one gateway process ends: requests and chunks a second, and what an open stream holds.

Only one of two processors is the proxy's: the client and the engine need the other one. What one
process can do at most is therefore computed from its own CPU time, and shown beside what was seen.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from rich.table import Table

from benchmarks.relay.client import Client
from benchmarks.relay.figures import percentile
from benchmarks.relay.forms import SMALL, Pace
from benchmarks.relay.measure import ROUND_S, Effort, longest_gap_s
from benchmarks.relay.targets import Target

CLIENTS = (1, 16, 64)
STREAMS = 200  # the engine has 256 slots
RATES = (5, 20, 40)  # chunks a second of each stream
SECONDS = 5  # of each stream
OPEN_S = 2.0  # until the memory of open streams is looked at


@dataclass
class Load:
    """`count` requests or chunks came in `wall_s`, for `cpu_s` of the proxy's own time."""

    what: str
    count: int
    wall_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float

    @property
    def each_us(self) -> float:
        return self.cpu_s / self.count * 1e6


@dataclass
class Limits:
    loads: list[Load]
    stream_kb: float  # of RSS


async def measure(target: Target, effort: Effort) -> Limits:
    async with asyncio.timeout(ROUND_S):
        await _requests(target, CLIENTS[0], effort.requests)  # warm
        stream_kb = await _stream_kb(target)  # before there were as many
        loads = [await _requests(target, clients, effort.requests * 10) for clients in CLIENTS]
        loads += [await _streams(target, rate) for rate in RATES]
        return Limits(loads, stream_kb)


async def _requests(target: Target, clients: int, count: int) -> Load:
    """Each client sends its next one when it has its answer."""
    request = SMALL.request()
    took: list[float] = []
    left = count

    async def ask() -> None:
        nonlocal left
        client = await Client.open(target.address)
        while left > 0:
            left -= 1
            took.append((await client.ask(request)).whole_s)
        client.close()

    before, begun = target.cpu_s(), time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    wall_s, cpu_s = time.perf_counter() - begun, target.cpu_s() - before
    p50, p99 = (percentile(took, share) * 1e3 for share in (0.5, 0.99))
    return Load(f"requests, {clients} clients", len(took), wall_s, cpu_s, p50, p99)


async def _streams(target: Target, rate: int) -> Load:
    """By how much chunks came later after the one before than they were made: the median stream's
    p99, and the worst stream's."""
    request = SMALL.request(Pace(rate * SECONDS + 40, rate))
    clients = [await Client.open(target.address) for _ in range(STREAMS)]
    before, begun = target.cpu_s(), time.perf_counter()
    answers = await asyncio.gather(*(client.ask(request) for client in clients))
    wall_s, cpu_s = time.perf_counter() - begun, target.cpu_s() - before
    for client in clients:
        client.close()
    gaps = sorted((longest_gap_s(answer) - 1 / rate) * 1e3 for answer in answers)
    chunks = sum(answer.chunks for answer in answers)
    what = f"chunks, {STREAMS} streams of {rate}/s"
    return Load(what, chunks, wall_s, cpu_s, gaps[len(gaps) // 2], gaps[-1])


async def _stream_kb(target: Target) -> float:
    request = SMALL.request(Pace(100_000, 1))
    before = target.rss_mb()
    clients = [await Client.open(target.address) for _ in range(STREAMS)]
    for client in clients:
        client.begin(request)
    for client in clients:
        await client.first_byte()
    await asyncio.sleep(OPEN_S)
    grown = target.rss_mb() - before
    for client in clients:
        client.close()
    return grown * 1e3 / STREAMS


def table(results: dict[str, Limits]) -> Table:
    shown = Table(
        "",
        "",
        "seen, a second",
        "CPU µs each",
        "of a core",
        "most a second on a core",
        "ms: request, or how late a chunk",
        "p99, or of the worst stream",
        title="relay_limits: client, engine and proxy share the processors",
    )
    for name, limits in results.items():
        for load in limits.loads:
            shown.add_row(
                name,
                load.what,
                f"{load.count / load.wall_s:,.0f}",
                f"{load.each_us:,.0f}",
                f"{load.cpu_s / load.wall_s:.0%}",
                f"{1e6 / load.each_us:,.0f}",
                f"{load.p50_ms:,.1f}",
                f"{load.p99_ms:,.1f}",
            )
        shown.add_row(name, "an open stream", "", "", "", f"{limits.stream_kb:,.0f} kB", "", "")
    return shown
