"""The scheduler next to two others, on the same arrival traces and a virtual clock.

    python -m benchmarks.scheduler_trace [--cpu] [--plot docs/scheduling.png]

Prints swaps, makespan and waits for each trace (`traces.py`) and policy (`policies.py`): the median
over the seeds and, in brackets, the worst of them. `--cpu` measures the CPU per scheduler event.

The *bound* of a waiting person: the fairness window, the longest lease of the other model that ran
in the meantime, one load and one stop. What may come on top is shown next to it: the window counts
from the running engine's own start, so where a person asks while the other model is still loading,
the rest of that load; and what waited before the person may be served in *overtime*, until the
engine has run for twice both loads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import scheduler_cpu
from benchmarks.person import WINDOW_S, Played, Results, person_asks
from benchmarks.policies import POLICIES
from benchmarks.simulator import STOP_S, Run, Simulation
from benchmarks.traces import HAMMERS, INTERLEAVED, TRACES, make

SLOTS = (4, 1)  # 4: what llama.cpp has by default
SEEDS = range(11)
WIDTH = 120
CLOCK_ERROR_S = 1e-3

# To be reached on the interleaved traces: strict first come, first served ÷ ours.
FEWER_SWAPS, SHORTER_WAIT = 4.0, 2.0


def play_all(slots: Sequence[int] = SLOTS, seeds: Sequence[int] = SEEDS) -> Results:
    results: Results = {}
    for at_a_time in slots:
        for name in TRACES:
            traces = [make(name, seed, at_a_time) for seed in seeds]
            for policy, build in POLICIES.items():
                results[at_a_time, name, policy] = [
                    Played(trace, Simulation(trace, build, window_s=WINDOW_S).play())
                    for trace in traces
                ]
    return results


# -- measures ---------------------------------------------------------------------------------


def waits(run: Run) -> list[float]:
    return sorted(request.wait_s for request in run.served)


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


MEASURES: dict[str, Callable[[Run], float]] = {
    "swaps": lambda run: run.swaps,
    "makespan s": lambda run: run.makespan_s,
    "mean wait s": lambda run: statistics.mean(waits(run)),
    "p95 wait s": lambda run: percentile(waits(run), 0.95),
    "max wait s": lambda run: waits(run)[-1],
}


# -- tables -----------------------------------------------------------------------------------


Worst = Callable[[Sequence[float]], float]


def median_and_worst(values: Sequence[float], worst: Worst, digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} ({worst(values):,.{digits}f})"


def comparison(results: Results, slots: int, traces: Sequence[str] = (*TRACES,)) -> Table:
    seeds = len(results[slots, traces[0], "ours"])
    table = Table(title=f"slots of each engine: {slots}; median (worst) of {seeds} seeds")
    for heading in ("Trace", "Policy"):
        table.add_column(heading, no_wrap=True)
    for measure in MEASURES:
        table.add_column(measure, justify="right", no_wrap=True)
    for name in traces:
        for policy in POLICIES:
            runs = [played.run for played in results[slots, name, policy]]
            assert not any(run.left or run.rejected for run in runs), "no request may be lost"
            cells = [
                median_and_worst([measure(run) for run in runs], max)
                for measure in MEASURES.values()
            ]
            table.add_row(name, policy, *cells, end_section=policy == [*POLICIES][-1])
    return table


def targets(results: Results) -> Table:
    """`unbounded` shows what a policy can reach at all that never makes a busy engine yield."""
    table = Table(title="how many times fewer than strict; median (worst) of the seeds")
    for heading in ("Slots", "Trace", "Policy", "swaps", "mean wait", "to reach"):
        table.add_column(heading, no_wrap=True)
    for slots in SLOTS:
        for name in (name for name in TRACES if name not in HAMMERS):
            for policy in ("unbounded", "ours"):
                swaps = _ratios(results, slots, name, policy, "swaps")
                wait = _ratios(results, slots, name, policy, "mean wait s")
                verdict = ""
                if policy == "ours" and name in INTERLEAVED:
                    verdict = f"{FEWER_SWAPS:g}: {_verdict(swaps, FEWER_SWAPS)}, "
                    verdict += f"{SHORTER_WAIT:g}: {_verdict(wait, SHORTER_WAIT)}"
                table.add_row(
                    str(slots), name, policy, median_and_worst(swaps, min, 2),
                    median_and_worst(wait, min, 2), verdict, end_section=policy == "ours",
                )  # fmt: skip
    return table


def _ratios(results: Results, slots: int, name: str, policy: str, measure: str) -> list[float]:
    value, pairs = (
        MEASURES[measure],
        zip(results[slots, name, "strict"], results[slots, name, policy], strict=True),
    )
    return [value(strict.run) / max(value(other.run), 1e-9) for strict, other in pairs]


def _verdict(ratios: Sequence[float], least: float) -> str:
    if min(ratios) >= least:
        return "reached by all"
    reached = sum(ratio >= least for ratio in ratios)
    return f"reached by {reached} of {len(ratios)}" if reached else "missed"


def people(results: Results) -> Table:
    table = Table(title="the person next to the hammering agent: the longest wait of all seeds")
    for column in ("Slots", "Trace", "Policy"):
        table.add_column(column, no_wrap=True)
    for column in ("wait s", "bound s", "rest of load s", "overtime s"):
        table.add_column(column, justify="right")
    for column in ("questions", "over the bound", "over all three"):
        table.add_column(column, justify="right")
    for slots in SLOTS:
        for name in HAMMERS:
            for policy in POLICIES:
                asks = [ask for p in results[slots, name, policy] for ask in person_asks(p)]
                longest = max(asks, key=lambda ask: ask.wait_s)
                over = sum(ask.wait_s > ask.bound_s + CLOCK_ERROR_S for ask in asks)
                over_all = sum(ask.wait_s > ask.whole_bound_s + CLOCK_ERROR_S for ask in asks)
                table.add_row(
                    str(slots), name, policy, *(f"{number:,.0f}" for number in longest),
                    str(len(asks)), str(over), str(over_all),
                    end_section=policy == [*POLICIES][-1],
                )  # fmt: skip
    return table


def tables(results: Results) -> list[Table]:
    return [*(comparison(results, slots) for slots in SLOTS), targets(results), people(results)]


def wide_console() -> Console:
    """A table is not cut where the output is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler_trace")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the waits")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU per event, and no more")
    options = parser.parse_args()
    console = wide_console()
    if options.cpu:
        console.print(scheduler_cpu.table())
        console.print(scheduler_cpu.growth_table())
        return
    results = play_all()
    console.print(f"fairness window {WINDOW_S:g} s, stop {STOP_S:g} s")
    for table in tables(results):
        console.print(table)
    if options.plot is not None:
        from benchmarks.scheduler_plot import draw

        draw(results, options.plot)
        console.print(f"drawn: {options.plot}")


if __name__ == "__main__":
    main()
