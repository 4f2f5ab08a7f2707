"""Asks the targets in interleaved rounds, and notes what each cost."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.relay.client import Answer, Client, ask_once
from benchmarks.relay.figures import Figure, Table, percentile, spread
from benchmarks.relay.forms import Form, Pace
from benchmarks.relay.targets import Target

STREAMS = 16
CHUNKS_A_SECOND = 100
BEGINNING = 20  # reads of a stream, while others begin
TURNS = 2  # of a round: long enough for each target to run warm, as it does under load
ROUND_S = 300.0  # longer, and something hangs


@dataclass(frozen=True)
class Effort:
    """How much is asked of each target in a round; the first round is thrown away."""

    rounds: int = 3
    requests: int = 300
    opens: int = 40  # connections for the first byte, one after another
    waves: int = 10  # and `STREAMS` at a time
    paced_chunks: int = 400
    bursts: int = 3
    burst_chunks: int = 20_000
    memory_requests: int = 10_000  # 0: memory is not measured


QUICK = Effort(
    rounds=1,
    requests=30,
    opens=10,
    waves=10,
    paced_chunks=50,
    bursts=1,
    burst_chunks=2_000,
    memory_requests=200,
)


@dataclass
class Samples:
    """Of one target in one round; seconds."""

    requests: list[float] = field(default_factory=list)
    requests_cpu_s: float = 0.0
    alone: list[float] = field(default_factory=list)  # to the first byte
    together: list[float] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)  # chunks per second

    def figures(self, target: Target) -> dict[Figure, float]:
        found = {
            **spread(self.requests, Figure.REQUEST, Figure.REQUEST_P99),
            **spread(self.alone, Figure.FIRST_1, Figure.FIRST_1_P99),
            **spread(self.together, Figure.FIRST_16, Figure.FIRST_16_P99),
            Figure.BURST: statistics.median(self.bursts) / 1e3,
        }
        if target.pid is not None:
            found[Figure.CPU_REQUEST] = self.requests_cpu_s / len(self.requests) * 1e6
        return found


async def one_round(
    targets: Sequence[Target], form: Form, effort: Effort
) -> dict[str, dict[Figure, float]]:
    """By the targets' names."""
    samples = {target.name: Samples() for target in targets}
    clients = {target.name: await Client.open(target.address) for target in targets}
    for turn in range(TURNS):
        for target in targets:
            mine = samples[target.name]
            await _requests(target, clients[target.name], form, share(effort.requests, turn), mine)
            await _first_bytes(target, form, effort, turn, mine)
    for _ in range(effort.bursts):
        for target in targets:
            await _burst(target, form, effort, samples[target.name])
    for client in clients.values():
        client.close()
    return {
        target.name: {
            **samples[target.name].figures(target),
            **await _chunks(target, form, effort),
        }
        for target in targets
    }


def share(count: int, turn: int) -> int:
    """How many of them are this turn's."""
    return count * (turn + 1) // TURNS - count * turn // TURNS


async def _requests(
    target: Target, client: Client, form: Form, count: int, samples: Samples
) -> None:
    """Small answers, one after another, on one connection."""
    request = form.request()
    await client.ask(request)
    before = target.cpu_s()
    samples.requests += [(await client.ask(request)).whole_s for _ in range(count)]
    samples.requests_cpu_s += target.cpu_s() - before


async def _first_bytes(
    target: Target, form: Form, effort: Effort, turn: int, samples: Samples
) -> None:
    """Each of a connection of its own."""
    request = form.request(Pace(8))
    for _ in range(share(effort.opens, turn)):
        samples.alone.append((await ask_once(target.address, request)).first_s)
    # The second chunk comes when all have their first byte.
    request = form.request(Pace(2, CHUNKS_A_SECOND))
    for _ in range(share(effort.waves, turn)):
        samples.together += [answer.first_s for answer in await _at_once(target, request)]


async def _at_once(target: Target, request: bytes) -> list[Answer]:
    return await asyncio.gather(*(ask_once(target.address, request) for _ in range(STREAMS)))


async def _chunks(target: Target, form: Form, effort: Effort) -> dict[Figure, float]:
    """The beginning of each stream is in the CPU, shared out among its chunks."""
    request = form.request(Pace(effort.paced_chunks, CHUNKS_A_SECOND))
    before = target.cpu_s()
    answers = await _at_once(target, request)
    cpu_s = target.cpu_s() - before
    gaps = sorted(longest_gap_s(answer) for answer in answers)
    figures = {Figure.GAP_FASTEST: gaps[0] * 1e3, Figure.GAP_SLOWEST: gaps[-1] * 1e3}
    if target.pid is not None:
        figures[Figure.CPU_CHUNK] = cpu_s / sum(answer.chunks for answer in answers) * 1e6
    return figures


def longest_gap_s(answer: Answer) -> float:
    """p99 of the time between two reads of a stream, once the others have begun as well."""
    came_s = answer.came_s[BEGINNING:]
    return percentile([b - a for a, b in pairwise(came_s)], 0.99)


async def _burst(target: Target, form: Form, effort: Effort, samples: Samples) -> None:
    answer = await ask_once(target.address, form.request(Pace(effort.burst_chunks)))
    samples.bursts.append(effort.burst_chunks / answer.whole_s)


async def rounds(table: Table, targets: Sequence[Target], form: Form, effort: Effort) -> None:
    """Fills the table."""
    measures_memory = effort.memory_requests > 0
    idle: dict[str, float] = {}
    for target in targets:
        await ask_once(target.address, form.request())  # its engine is ready from then on
        idle[target.name] = target.rss_mb()
    for number in range(effort.rounds + 1):
        async with asyncio.timeout(ROUND_S):
            measured = await one_round(targets, form, effort)
        if number > 0:
            for name, figures in measured.items():
                table.rows.setdefault(name, []).append(figures)
    for target in targets:
        if measures_memory and target.pid is not None:
            await _many(target, form, effort.memory_requests)
            memory = {Figure.RSS_IDLE: idle[target.name], Figure.RSS_AFTER: target.rss_mb()}
            for figures in table.rows[target.name]:
                figures.update(memory)


async def _many(target: Target, form: Form, requests: int) -> None:
    """Over a few kept connections, which take turns as they can."""
    request = form.request()
    left = requests

    async def ask() -> None:
        nonlocal left
        client = await Client.open(target.address)
        while left > 0:
            left -= 1
            await client.ask(request)
        client.close()

    await asyncio.gather(*(ask() for _ in range(STREAMS)))
