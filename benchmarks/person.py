"""How long a person waited next to a client that never stops, and what bounds such a wait.

The bound is explained in `scheduler_trace.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.simulator import STOP_S, Load, Run, Served, Trace
from benchmarks.traces import PERSON
from trio_gateway.engine.scheduling.giving_up import OVERTIME_LOADS

WINDOW_S = 10.0  # the gateway's default


class Played(NamedTuple):
    trace: Trace
    run: Run


# (slots, trace, policy) -> one for each seed
Results = dict[tuple[int, str, str], list[Played]]


class Asked(NamedTuple):
    """A person's question. `rest_s`: what was left of the other model's load under way.
    `overtime_s`: how long after the window's end the agent's older tickets may be served."""

    wait_s: float
    bound_s: float
    rest_s: float
    overtime_s: float

    @property
    def whole_bound_s(self) -> float:
        return self.bound_s + self.rest_s + self.overtime_s


def person_asks(played: Played, window_s: float = WINDOW_S) -> list[Asked]:
    trace, run = played
    asks = []
    for ask in run.served:
        if ask.client != PERSON:
            continue
        rest_s = _rest_of_load_s(run, ask)
        longest_s = max(
            (
                other.service_s
                for other in run.served
                if other.granted_at < ask.granted_at and other.ended_at > ask.arrived_at
            ),
            default=0.0,
        )
        bound_s = window_s + longest_s + trace.load_s[ask.model] + STOP_S
        overtime_s = _overtime_s(trace, run, ask, ask.arrived_at + rest_s + window_s)
        asks.append(Asked(ask.wait_s, bound_s, rest_s, overtime_s))
    return asks


def _overtime_s(trace: Trace, run: Run, ask: Served, window_ends_at: float) -> float:
    """From the window's end until the engine in the way has run for twice both loads."""
    others = [load for load in run.loads if load.model != ask.model]
    latest = max((x for x in others if x.ready_at <= window_ends_at), key=_ready_at, default=None)
    if latest is None:
        return 0.0
    loads_s = trace.load_s[ask.model] + trace.load_s[latest.model]
    return max(latest.ready_at + OVERTIME_LOADS * loads_s - window_ends_at, 0.0)


def _ready_at(load: Load) -> float:
    return load.ready_at


def _rest_of_load_s(run: Run, ask: Served) -> float:
    for load in run.loads:
        began_at = load.began_at - STOP_S  # from the stop that made room for it
        if load.model != ask.model and began_at <= ask.arrived_at < load.ready_at:
            return load.ready_at - ask.arrived_at
    return 0.0
