"""What the gateway adds to an engine that is asked directly, and what reading an engine costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.harness import GatewayProcess, configuration, fake_model, running_gateway

ROUNDS = 5
CHUNKS = 100
INTERVAL_S = 0.005

Row = tuple[str, str, str]


def load(port: int, clients: int, requests: int, chunks: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load"]
    numbers = [str(n) for n in (port, clients, requests, chunks)]
    done = subprocess.run(
        [*command, *numbers, "fake"], capture_output=True, text=True, check=True, timeout=300
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def pin(gateway: GatewayProcess) -> None:
    """The gateway on one core, this process and the engines on the other."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) >= 2:
        os.sched_setaffinity(gateway.process.pid, {cores[0]})
        rest = set(cores[1:])
        os.sched_setaffinity(0, rest)
        for engine in gateway.engines():
            os.sched_setaffinity(engine.pid, rest)


def unpin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))


def median_of(rounds: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(rounds))


def relaying(folder: Path) -> list[Row]:
    config = configuration(fake_model("fake", "--interval-s", str(INTERVAL_S)))
    with running_gateway(folder, config, verbose=False) as gateway:
        assert gateway.chat("fake").status_code == 200
        pin(gateway)
        ours = int(gateway.base_url.rpartition(":")[2])
        ready = gateway.wait_for_line(r"fake:4096: ready .* http://127.0.0.1:(\d+),")
        theirs = int(ready[1])
        process = psutil.Process(gateway.process.pid)
        rows = [row for clients in (1, 16) for row in first_bytes(ours, theirs, clients)]
        rows += cpu_costs(process, ours)
        rows += client_costs(theirs)
        unpin()
    return rows


def first_bytes(ours: int, theirs: int, clients: int) -> list[Row]:
    load(ours, clients, clients * 5, 2)
    direct, through = [], []
    for _ in range(ROUNDS):
        direct.append(load(theirs, clients, clients * 60, 2))
        through.append(load(ours, clients, clients * 60, 2))
    rows = []
    for share in ("p50_ms", "p99_ms"):
        bare = statistics.median(r[share] for r in direct)
        added = statistics.median(r[share] for r in through) - bare
        target = "< 2.5 ms" if (clients, share) == (1, "p50_ms") else ""
        label = f"added time to first byte, {clients} clients, {share[:3]}"
        rows.append((label, f"{added:.2f} ms (bare engine {bare:.2f} ms)", target))
    return rows


def cpu_costs(process: psutil.Process, port: int) -> list[Row]:
    def per_request() -> float:
        before, requests = cpu_s(process), 600
        load(port, 4, requests, 0)
        return (cpu_s(process) - before) / requests * 1e6

    def per_chunk() -> float:
        before = cpu_s(process)
        events = load(port, 16, 64, CHUNKS)["events"]
        return (cpu_s(process) - before) / events * 1e6

    pace = f"16 streams, {1 / INTERVAL_S:.0f} chunks/s each"
    return [
        ("CPU per request (one piece)", f"{median_of(ROUNDS, per_request):.0f} µs", ""),
        (f"CPU per streamed chunk ({pace})", f"{median_of(3, per_chunk):.0f} µs", ""),
    ]


def client_costs(port: int) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.clients", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    cost: dict[str, float] = json.loads(done.stdout)
    return [
        (
            f"{what}: own exchange, httpx, nothing but sockets and parser",
            f"{cost[own]:.0f}, {cost[key + '_httpx']:.0f}, {cost[key + '_raw']:.0f} µs of CPU",
            "",
        )
        for what, own, key in (
            ("a streamed chunk", "chunk_exchange", "chunk"),
            ("a small request over a kept connection", "request_kept", "request"),
            ("a small request over a fresh connection", "request_fresh", "request"),
            ("a health check", "health_check", "request"),
        )
    ]
