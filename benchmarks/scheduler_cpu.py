"""CPU per scheduler event, with 256 tickets waiting for eight models in a pool of two engines.

A crowd of clients asks, leaves when it has waited too long, and asks again at once, so the line
never gets shorter. The simulator notes every event; then the same events are told to a fresh
scheduler, and only that is measured: nothing of the simulator is in the number.
"""

from __future__ import annotations

import random
import statistics
import time

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
from trio_gateway.engine.scheduling.events import Event

WAITING = 256
MODELS = "ABCDEFGH"
ENGINES, SLOTS = 2, 4
EVENTS = 10_000
WINDOW_S = 10.0
ROUNDS = 5
TO_REACH_US = 50.0
REQUESTS_EACH = 60
LOAD_S, SERVICE_S, PATIENCE_S = (3.0, 10.0), (0.5, 10.0), (5.0, 60.0)


def crowd(seed: int) -> Trace:
    """As many clients as tickets are to wait, and one for each slot that holds a lease."""
    rng = random.Random(seed)

    def request() -> Request:
        patience_s = rng.uniform(*PATIENCE_S)
        return Request(rng.choice(MODELS), rng.uniform(*SERVICE_S), patience_s=patience_s)

    clients = tuple(
        Client(f"client {number}", tuple(request() for _ in range(REQUESTS_EACH)))
        for number in range(WAITING + ENGINES * SLOTS)
    )
    load_s = {model: rng.uniform(*LOAD_S) for model in MODELS}
    return Trace(load_s=load_s, clients=clients, slots=SLOTS, engines=ENGINES)


def events_of(trace: Trace, policy: Policy) -> list[tuple[Event, float]]:
    """The events of that policy's run, the first ones (the crowd's arrival) included."""
    log = Simulation(trace, policy, window_s=WINDOW_S).play().log
    assert len(log) >= WAITING + EVENTS, f"the trace has {len(log)} events only"
    return log[: WAITING + EVENTS]


def cpu_us(trace: Trace, policy: Policy, events: list[tuple[Event, float]]) -> float:
    """Mean of `handle` and `next_deadline`, which the manager calls after each event."""
    scheduler = policy(
        facts_of(trace),
        pools_of(trace),
        queue_limit=NO_LIMIT,
        queue_timeout_s=float(NO_LIMIT),
        fairness_window_s=WINDOW_S,
    )
    for event, now in events[:WAITING]:
        scheduler.handle(event, now)
    begun = time.process_time()
    for event, now in events[WAITING:]:
        scheduler.handle(event, now)
        scheduler.next_deadline()
    return (time.process_time() - begun) / (len(events) - WAITING) * 1e6


def table() -> Table:
    trace = crowd(1)
    logs = {name: events_of(trace, policy) for name, policy in POLICIES.items()}
    results: dict[str, list[float]] = {name: [] for name in POLICIES}
    for _ in range(ROUNDS):  # in turns, so that a noisy machine is noisy for all
        for name, policy in POLICIES.items():
            results[name].append(cpu_us(trace, policy, logs[name]))
    shown = Table(
        "Policy",
        "µs of CPU per event",
        "To reach",
        title=f"{WAITING} tickets wait, {len(MODELS)} models, {ENGINES} engines, {EVENTS} events; "
        f"median (worst) of {ROUNDS} rounds",
    )
    for name, values in results.items():
        target = f"< {TO_REACH_US:g} µs" if name == "ours" else ""
        shown.add_row(name, f"{statistics.median(values):.1f} ({max(values):.1f})", target)
    return shown
