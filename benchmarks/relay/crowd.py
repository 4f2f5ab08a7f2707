"""A small request while many others are there: idle connections and slow streams, and a stream that
bursts beside others that are paced."""

from __future__ import annotations

import asyncio
import resource
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from rich.table import Table

from benchmarks.relay.client import Client, ask_once
from benchmarks.relay.figures import Ratios, percentile
from benchmarks.relay.forms import SMALL, Pace
from benchmarks.relay.measure import CHUNKS_A_SECOND, ROUND_S, STREAMS, Effort, longest_gap_s
from benchmarks.relay.targets import Target

IDLE, SLOW = 1000, 200
SLOW_PACE = Pace(chunks=100_000, rate=1)
TO_REACH = 2.0
# The gateway allows an address fewer connections, and a file descriptor each is needed here, too.
SERVER = {"connections_per_address": str(4 * IDLE), "queue_limit": str(IDLE)}
FILES = 4 * IDLE


@dataclass
class Round:
    """Seconds: p99 of a small request, alone and in the crowd; p99 of the time between two chunks
    of the fastest and of the slowest paced stream, beside another that bursts."""

    alone: float
    crowded: float
    fastest: float
    slowest: float

    @property
    def crowding(self) -> float:
        return self.crowded / self.alone

    @property
    def unfairness(self) -> float:
        return self.slowest / self.fastest


Results = dict[str, list[Round]]


def allow_many_files() -> None:
    """For this process, and those that it starts from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))


async def measure(targets: list[Target], effort: Effort) -> Results:
    """In interleaved rounds; the first is thrown away."""
    results: Results = {target.name: [] for target in targets}
    for number in range(effort.rounds + 1):
        for target in targets:
            async with asyncio.timeout(ROUND_S):
                result = await _one_round(target, effort)
            if number > 0:
                results[target.name].append(result)
    return results


async def _one_round(target: Target, effort: Effort) -> Round:
    alone = await _late_request_s(target, effort.requests)
    async with _crowd(target):
        crowded = await _late_request_s(target, effort.requests)
    gaps = await _gaps_beside_a_burst(target, effort)
    return Round(alone, crowded, gaps[0], gaps[-1])


async def _late_request_s(target: Target, requests: int) -> float:
    request = SMALL.request()
    client = await Client.open(target.address)
    took = [(await client.ask(request)).whole_s for _ in range(requests)]
    client.close()
    return percentile(took, 0.99)


@asynccontextmanager
async def _crowd(target: Target) -> AsyncIterator[None]:
    """Idle connections, each of which has had an answer, and slow streams that have begun."""
    request, slow = SMALL.request(), SMALL.request(SLOW_PACE)
    async with AsyncExitStack() as ends:
        for _ in range(IDLE):
            client = await Client.open(target.address)
            ends.callback(client.close)
            await client.ask(request)
        streams = []
        for _ in range(SLOW):
            client = await Client.open(target.address)
            ends.callback(client.close)
            streams.append(client)
            client.begin(slow)
        for client in streams:
            await client.first_byte()
        yield


async def _gaps_beside_a_burst(target: Target, effort: Effort) -> list[float]:
    """Of each paced stream, sorted."""
    burst = SMALL.request(Pace(effort.burst_chunks))
    paced = SMALL.request(Pace(effort.paced_chunks, CHUNKS_A_SECOND))
    others = asyncio.gather(*(ask_once(target.address, paced) for _ in range(STREAMS)))
    while not others.done():
        await ask_once(target.address, burst)
    return sorted(longest_gap_s(answer) for answer in await others)


def ratios(results: Results) -> Ratios:
    return {
        name: {
            "crowding": round(statistics.median(one.crowding for one in rounds), 3),
            "unfairness": round(statistics.median(one.unfairness for one in rounds), 3),
        }
        for name, rounds in results.items()
    }


def table(results: Results) -> Table:
    shown = Table(
        "",
        "request p99 ms, alone",
        f"with {IDLE:,} idle connections and {SLOW} slow streams",
        f"ratio (to reach ≤ {TO_REACH:g})",
        "beside a burst: p99 ms between chunks, fastest stream",
        f"slowest of {STREAMS}",
        "ratio",
        title="relay_crowd",
    )
    found = ratios(results)
    for name, rounds in results.items():
        alone, crowded, fastest, slowest = (
            f"{statistics.median(getattr(one, part) for one in rounds) * 1e3:.2f}"
            for part in ("alone", "crowded", "fastest", "slowest")
        )
        crowding, unfairness = (f"{ratio:.2f}" for ratio in found[name].values())
        shown.add_row(name, alone, crowded, crowding, fastest, slowest, unfairness)
    return shown
