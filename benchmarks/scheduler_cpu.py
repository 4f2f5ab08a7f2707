"""CPU per scheduler event, with a crowd that waits, and how it grows with the crowd.

A crowd of clients asks, leaves when it has waited too long, and asks again at once, so the line
never gets shorter. The simulator notes every event; then the same events are told to a fresh
scheduler, and only that is measured: nothing of the simulator is in the number.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from typing import NamedTuple

from rich.table import Table

from benchmarks.policies import POLICIES, Policy
from benchmarks.simulator import (
    NO_LIMIT,
    Client,
    Request,
    Simulation,
    Trace,
    facts_of,
    pools_of,
)
from trio_gateway.engine.scheduling.events import Event, TicketArrived
from trio_gateway.engine.scheduling.scheduler import Scheduler

SLOTS = 4
EVENTS = 10_000
WINDOW_S = 10.0
ROUNDS = 5
TO_REACH_US = 50.0
LOAD_S, SERVICE_S = (3.0, 10.0), (0.5, 10.0)


class Size(NamedTuple):
    """As many tickets wait for the models of these pools, which have that many engines together.
    They leave after `patience_s`. What is measured begins `after_s`: all engines have swapped by
    then."""

    waiting: int
    engines: int
    models: int
    pools: int = 1
    patience_s: tuple[float, float] = (5.0, 60.0)
    after_s: float = 0.0


SMALL = Size(256, 2, 8)
# The last two get 1,000 requests a second.
GROWING = (
    SMALL._replace(after_s=30.0),
    Size(1_024, 8, 32, after_s=30.0),
    Size(4_096, 32, 64, after_s=30.0),
    Size(10_000, 200, 400, patience_s=(2.0, 18.0), after_s=30.0),
    Size(10_000, 200, 400, pools=8, patience_s=(2.0, 18.0), after_s=30.0),
)
WINDOWS = 3  # in which the growth is measured, one after the other
GROWING_TO_REACH_US = 100.0


def crowd(seed: int, size: Size = SMALL, events: int = EVENTS) -> Trace:
    """As many clients as tickets are to wait, and one for each slot that holds a lease; they ask
    often enough for so many events."""
    rng = random.Random(seed)
    models = [f"model {number}" for number in range(size.models)]

    def request() -> Request:
        patience_s = rng.uniform(*size.patience_s)
        return Request(rng.choice(models), rng.uniform(*SERVICE_S), patience_s=patience_s)

    number_of_clients = size.waiting + size.engines * SLOTS
    requests_each = events // number_of_clients * 3 // 2 + 5
    clients = tuple(
        Client(f"client {number}", tuple(request() for _ in range(requests_each)))
        for number in range(number_of_clients)
    )
    load_s = {model: rng.uniform(*LOAD_S) for model in models}
    return Trace(
        load_s=load_s, clients=clients, slots=SLOTS, engines=size.engines, pools=size.pools
    )


def events_of(trace: Trace, policy: Policy, events: int) -> list[tuple[Event, float]]:
    """The first events of that policy's run, the crowd's arrival included."""
    log = Simulation(trace, policy, window_s=WINDOW_S, events=events).play().log
    assert len(log) == events, f"the trace has {len(log)} events only"
    return log


def cpu_us(
    trace: Trace, policy: Policy, log: list[tuple[Event, float]], after: int, windows: int = 1
) -> list[float]:
    """Means of `handle`, after which `wakes_at` says when it is due next, in windows of the same
    length.

    Args:
        after: the first that is measured.
    """
    gc.collect()
    gc.freeze()  # the garbage collector would go through the log again and again
    try:
        return _cpu_us(trace, policy, log, after, windows)
    finally:
        gc.unfreeze()


def _cpu_us(
    trace: Trace, policy: Policy, log: list[tuple[Event, float]], after: int, windows: int
) -> list[float]:
    scheduler = policy(
        facts_of(trace),
        pools_of(trace),
        queue_limit=NO_LIMIT,
        queue_timeout_s=float(NO_LIMIT),
        fairness_window_s=WINDOW_S,
    )
    for event, now in log[:after]:
        scheduler.handle(event, now)
    length, found = (len(log) - after) // windows, []
    for first in range(after, after + windows * length, length):
        begun = time.process_time()
        for event, now in log[first : first + length]:
            scheduler.handle(event, now)
        found.append((time.process_time() - begun) / length * 1e6)
    return found


def table() -> Table:
    """Ours next to others."""
    trace = crowd(1)
    until = SMALL.waiting + EVENTS
    logs = {name: events_of(trace, policy, until) for name, policy in POLICIES.items()}
    results: dict[str, list[float]] = {name: [] for name in POLICIES}
    for _ in range(ROUNDS):  # in turns, so that a noisy machine is noisy for all
        for name, policy in POLICIES.items():
            results[name] += cpu_us(trace, policy, logs[name], SMALL.waiting)
    shown = Table(
        "Policy",
        "µs of CPU per event",
        "To reach",
        title=f"{SMALL.waiting} tickets wait, {SMALL.models} models, {SMALL.engines} engines, "
        f"{EVENTS} events; median (worst) of {ROUNDS} rounds",
    )
    for name, values in results.items():
        target = f"< {TO_REACH_US:g} µs" if name == "ours" else ""
        shown.add_row(name, f"{statistics.median(values):.1f} ({max(values):.1f})", target)
    return shown


class Grown(NamedTuple):
    """`values_us` of each window; requests a second while they were measured."""

    size: Size
    values_us: list[float]
    requests_s: float

    @property
    def median_us(self) -> float:
        return statistics.median(self.values_us)


def grown(size: Size) -> Grown:
    # An event a moment is an arrival or an end, and each request has one of both.
    least_patience_s, most_patience_s = size.patience_s
    events_s = 2 * size.waiting / ((least_patience_s + most_patience_s) / 2)
    after = size.waiting + round(events_s * size.after_s)
    trace = crowd(1, size, after + EVENTS)
    log = events_of(trace, Scheduler, after + EVENTS)
    measured = log[after:]
    arrivals = sum(isinstance(event, TicketArrived) for event, _ in measured)
    requests_s = arrivals / (measured[-1][1] - measured[0][1])
    return Grown(size, cpu_us(trace, Scheduler, log, after, WINDOWS), requests_s)


def growth_table() -> Table:
    """How ours grows. A column says how often as much as for the smallest crowd an event takes, and
    how often as much the logarithm of the crowd is."""
    found = [*map(grown, GROWING)]
    smallest = found[0]
    shown = Table(
        "Tickets wait", "Engines", "Models", "Pools", "Requests a second", "µs of CPU per event",
        "Growth", "of log n", "To reach",
        title=f"The scheduler as it grows, {EVENTS} events; median (worst) of {WINDOWS} windows",
    )  # fmt: skip
    for each in found:
        size = each.size
        log_ratio = math.log(size.waiting) / math.log(smallest.size.waiting)
        shown.add_row(
            f"{size.waiting:,}",
            *map(str, (size.engines, size.models, size.pools)),
            f"{each.requests_s:,.0f}",
            f"{each.median_us:.1f} ({max(each.values_us):.1f})",
            f"{each.median_us / smallest.median_us:.2f}",
            f"{log_ratio:.2f}",
            f"< {GROWING_TO_REACH_US:g} µs",
        )
    return shown
