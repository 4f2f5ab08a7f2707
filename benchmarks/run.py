"""What the gateway costs compared with going straight to the same engine: `nox -s bench`.

Pairs are measured in turns, so that a noisy machine is noisy for both sides. On Linux the gateway
has a core of its own where there are two. Nothing here passes or fails: the table says what was
measured next to what is to be reached.

    python -m benchmarks.run [PART ...] [--rounds N] [--requests N] [--quick] [--update-baseline]

The options are about the parts `relay...`, which also say what moved against baseline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import carryover, exactness, real_trace, scheduler_cpu, scheduler_trace
from benchmarks.relay import baseline
from benchmarks.relay import parts as relay_parts
from benchmarks.relay.figures import Ratios
from benchmarks.relay.measure import QUICK, Effort
from benchmarks.relaying import ROUNDS, Row, median_of, relaying
from tests.support.harness import (
    chat_body,
    configuration,
    fake_model,
    model,
    real_variant,
    running_gateway,
)
from trio_gateway.engine.process.ports import pick_free_port


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
    return [
        *scheduler_trace.tables(scheduler_trace.play_all()),
        scheduler_cpu.table(),
        scheduler_cpu.growth_table(),
    ]


def real_scheduler() -> list[Table]:
    return [real_trace.table()]


def exact_fit() -> list[Table]:
    return [*exactness.tables()]


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "start": start, "relaying": relaying, "swap": swap, "shutdown": shutdown,
}  # fmt: skip
# These have tables of their own.
COMPARISONS: dict[str, Callable[[], list[Table]]] = {
    "scheduler": scheduler, "real_scheduler": real_scheduler,
    "exactness": exact_fit, "carryover": carryover.tables,
}  # fmt: skip


def options() -> argparse.Namespace:
    names = [*PARTS, *COMPARISONS, *relay_parts.PARTS]
    parser = argparse.ArgumentParser(prog="nox -s bench --")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=Effort.rounds)
    parser.add_argument("--requests", type=int, default=Effort.requests, help="of each round")
    parser.add_argument("--quick", action="store_true", help="to try the bench, not to measure")
    parser.add_argument("--update-baseline", action="store_true", help="keep the new ratios")
    given = parser.parse_args()
    if unknown := [*{*given.parts} - {*names}]:
        parser.error(f"no part is called {unknown[0]}; known: {', '.join(names)}")
    if given.quick and given.update_baseline:
        parser.error("--quick measures nothing that is worth keeping")
    given.parts = given.parts or names
    return given


def main() -> None:
    given = options()
    effort = QUICK if given.quick else Effort(rounds=given.rounds, requests=given.requests)
    console = scheduler_trace.wide_console()
    table = Table("Measured", "Result", "To reach")
    ratios: dict[str, Ratios] = {}
    for name in given.parts:
        console.print(f"measuring: {name} …")
        if name in relay_parts.PARTS:
            result = relay_parts.PARTS[name](effort)
            console.print(*result.shown, sep="\n")
            ratios.update(result.ratios)
        elif name in COMPARISONS:
            console.print(*COMPARISONS[name]())
        else:
            with tempfile.TemporaryDirectory() as folder:
                for row in PARTS[name](Path(folder)):
                    table.add_row(*row)
    if table.rows:
        console.print(table)
    if ratios:
        compare(ratios, console, update=given.update_baseline)
    console.print(machine())


def compare(ratios: dict[str, Ratios], console: Console, *, update: bool) -> None:
    kept = baseline.read()
    lines = baseline.moved(ratios, kept)
    share = f"{baseline.MOVED:.0%}"
    console.print(f"Ratios that moved by more than {share} against {baseline.FILE.name}:")
    console.print(*(lines or ["none"]), sep="\n")
    if update:
        baseline.update(ratios, machine())


def machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {_cpu_name()}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    match: Any = re.search(r"model name\s*: (.*)", text)
    return match[1] if match else "an unknown CPU"


if __name__ == "__main__":
    main()
