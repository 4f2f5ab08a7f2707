"""What the gateway costs compared with going straight to the same engine: `nox -s bench`.

Pairs are measured in turns, so that a noisy machine is noisy for both sides. On Linux the gateway
has a core of its own where there are two. Nothing here passes or fails: the table says what was
measured next to what is to be reached.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.table import Table

from benchmarks import carryover, exactness, real_trace, scheduler_cpu, scheduler_trace
from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    model,
    real_variant,
    running_gateway,
)
from trio_gateway.engine.process.ports import pick_free_port

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
            f"reading a {what}: own exchange, then httpx",
            f"{cost[key + '_exchange']:.0f} against {cost[key + '_httpx']:.0f} µs of CPU",
            "",
        )
        for what, key in (("streamed chunk", "chunk"), ("small answer", "request"))
    ]


def swap(folder: Path) -> list[Row]:
    """A swap between two real models, next to stopping and starting the same engine by hand."""
    config = configuration(model("a", real_variant(2048)), model("b", real_variant(2048)))
    with running_gateway(folder, config, verbose=False) as gateway:
        body = chat_body("a", max_tokens=1)
        asks = {name: {**body, "model": name} for name in ("a", "b")}
        with gateway.client() as client:

            def timed(name: str) -> float:
                begun = time.perf_counter()
                response = client.post("/v1/chat/completions", json=asks[name])
                assert response.status_code == 200, response.text
                return time.perf_counter() - begun

            timed("a")
            (engine,) = gateway.engines()
            command = engine.cmdline()
            swaps, bares = [], []
            bare = BareEngine(command)
            for turn in range(ROUNDS * 2):
                # Both sides: the old engine stops, the new one starts and answers one token.
                swaps.append(timed("b" if turn % 2 == 0 else "a"))
                bares.append(bare.restart())
            bare.stop()
    ours, theirs = statistics.median(swaps), statistics.median(bares)
    over = (ours - theirs) * 1e3
    return [
        (
            "swap over a bare stop + start",
            f"{over:+.0f} ms ({ours * 1e3:.0f} against {theirs * 1e3:.0f} ms)",
            "≤ 100 ms",
        )
    ]


class BareEngine:
    """The engine's own command, started and stopped as a script would, without any polling."""

    def __init__(self, command: list[str]) -> None:
        port = command[command.index("--port") + 1]
        self._port = pick_free_port({int(port)})
        self._command = [str(self._port) if word == port else word for word in command]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "listening on" in line:
                return process
        raise RuntimeError(f"{' '.join(self._command)} did not start")

    def restart(self) -> float:
        begun = time.perf_counter()
        self.stop()
        self._process = self._start()
        url = f"http://127.0.0.1:{self._port}/v1/chat/completions"
        httpx.post(url, json=chat_body("a", max_tokens=1), trust_env=False).raise_for_status()
        return time.perf_counter() - begun

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.stderr is not None
        self._process.stderr.read()
        self._process.stderr.close()
        self._process.wait()


def start(folder: Path) -> list[Row]:
    """From the command to the listening sockets, and what the idle process holds."""

    def once() -> tuple[float, float]:
        begun = time.perf_counter()
        config = configuration(fake_model("fake"))
        with running_gateway(folder, config, ready=r"listening on (\S+)", verbose=False) as gateway:
            took = time.perf_counter() - begun
            gateway.chat("fake")
            rss = psutil.Process(gateway.process.pid).memory_info().rss
            reaper = gateway.reaper().memory_info().rss
            return took, (rss + reaper) / 1024**2

    runs = [once() for _ in range(ROUNDS)]
    return [
        ("start to listening", f"{statistics.median(r[0] for r in runs):.2f} s", "< 1.0 s"),
        (
            "idle memory (RSS, the reaper included)",
            f"{statistics.median(r[1] for r in runs):.0f} MiB",
            "< 90 MB",
        ),
    ]


def shutdown(folder: Path) -> list[Row]:
    """SIGTERM with 50 streams under way that would last for minutes."""
    grace_s, stop_s = 1.0, 5.0
    config = configuration(
        fake_model("fake", "--interval-s", "0.05"),
        shutdown_grace=str(grace_s),
        engine_stop_timeout=str(stop_s),
    )

    def once() -> float:
        with running_gateway(folder, config, verbose=False) as gateway:
            gateway.chat("fake")
            streams = [
                subprocess.Popen(
                    ["curl", "-sN", f"{gateway.base_url}/v1/chat/completions", "-d", body],
                    stdout=subprocess.PIPE,
                )
                for body in [json.dumps(chat_body("fake", stream=True, max_tokens=3000))] * 50
            ]
            for stream in streams:
                assert stream.stdout is not None
                stream.stdout.readline()
            begun = time.perf_counter()
            gateway.stop(signal.SIGTERM)
            took = time.perf_counter() - begun
            for stream in streams:
                stream.communicate(timeout=10)
        return took

    bound = grace_s + stop_s + 1
    label = f"shutdown with 50 streams (grace {grace_s:g} s)"
    return [(label, f"{median_of(3, once):.2f} s", f"< {bound:g} s")]


def scheduler() -> list[Table]:
    return [*scheduler_trace.tables(scheduler_trace.play_all()), scheduler_cpu.table()]


def real_scheduler() -> list[Table]:
    return [real_trace.table()]


def exact_fit() -> list[Table]:
    return [*exactness.tables()]


def main() -> None:
    parts: dict[str, Callable[[Path], list[Row]]] = {
        "start": start, "relaying": relaying, "swap": swap, "shutdown": shutdown,
    }  # fmt: skip
    # These have tables of their own.
    comparisons: dict[str, Callable[[], list[Table]]] = {
        "scheduler": scheduler, "real_scheduler": real_scheduler,
        "exactness": exact_fit, "carryover": carryover.tables,
    }  # fmt: skip
    chosen = sys.argv[1:] or [*parts, *comparisons]
    console = scheduler_trace.wide_console()
    table = Table("Measured", "Result", "To reach")
    for name in chosen:
        console.print(f"measuring: {name} …")
        if name in comparisons:
            console.print(*comparisons[name]())
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in parts[name](Path(folder)):
                table.add_row(*row)
    if table.rows:
        console.print(table)
    console.print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {_cpu_name()}")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    match: Any = re.search(r"model name\s*: (.*)", text)
    return match[1] if match else "an unknown CPU"


if __name__ == "__main__":
    main()
