"""What an engine is said to do next, in each situation that it can be in."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    A,
    B,
    LeaseBack,
    Step,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    ShutDown,
    TicketArrived,
    Unload,
    VariantFacts,
)
from trio_gateway.engine.scheduling.prospects import Prospects

# A load takes 10 s.
UNKNOWN = VariantFacts(
    key=variant("a").key, pool="primary", context=1000, load_time_known=False
)  # how long it loads
KEPT = variant("a", idle_timeout_s=math.inf)
LONG = variant("a", idle_timeout_s=3600)
IDLE: list[Step] = [*loaded("a"), (5, LeaseBack(1), [])]


class Case(NamedTuple):
    """After these steps, at that time, this is said of engine 1."""

    variants: tuple[VariantFacts, ...]
    steps: list[Step]
    now: float
    next: str
    window_s: float = 0.0


CASES = {
    "it loads": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"])], 4,
        "takes requests in about 6 s",
    ),
    "it loads for longer than ever": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"])], 40, "is about to be ready",
    ),
    "it loads, and nobody knows for how long": Case(
        (UNKNOWN,), [(0, arrive(1, "a"), ["start a:only as 1"])], 4,
        "takes requests once it is loaded",
    ),
    "it is idle": Case((A,), IDLE, 15, "stops in 290 s if nobody asks"),
    "it is idle, and may be for long": Case((LONG,), IDLE, 15, "stops in 60 min if nobody asks"),
    "it is idle, and stays": Case((KEPT,), IDLE, 15, "stays loaded"),
    "it works": Case((A,), loaded("a"), 3, "stops once nobody has asked for 300 s"),
    "it works, and stays": Case((KEPT,), loaded("a"), 3, "stays loaded"),
    "it drains": Case(
        (A, B), [*loaded("a", slots=2), (1, arrive(2, "a"), ["grant 2 engine 1"]),
                 (2, arrive(3, "b"), ["drain 1"])],
        30, "drains for b: 2 answers are running",
    ),
    "it drains, and only reads": Case(
        (A, B),
        [(0, TicketArrived(1, "a", 100, read_bytes=9), ["start a:only as 1"]),
         (0, ready(1), ["grant 1 engine 1"]), (1, arrive(3, "b"), ["drain 1"])],
        30, "drains for b: 1 request is running",
    ),
    "it drains for a larger one of its own model": Case(
        GROWING,
        [(0, arrive(1, "a"), ["start a:small as 1"]), (0, ready(1), ["grant 1 engine 1"]),
         (1, arrive(2, "a", LARGE), ["drain 1"])],
        2, "drains for a:large: 1 answer is running",
    ),
    "another waits for its window": Case(
        (A, B), [*loaded("a"), (2, arrive(3, "b"), [])], 5,
        "takes requests for 7 s more, then drains for b", window_s=10,
    ),
    "it serves what came before": Case(
        (A, B),
        [*loaded("a"), (1, arrive(2, "a"), []), (2, arrive(3, "b"), [])], 13,
        "serves what came before b, for 7 s at most, then drains for it", window_s=10,
    ),
    "a batch waits for it": Case(
        (A, B), [*loaded("a"), (2, batch(3, "b"), [])], 5,
        "goes on; b waits until it is idle", window_s=10,
    ),
    "it is stopped for another": Case(
        (A, B), [*IDLE, (6, arrive(3, "b"), ["stop 1"])], 6, "is being stopped",
    ),
    "it is unloaded": Case(
        (A,), [*loaded("a"), (1, Unload("a"), ["drain 1"])], 2,
        "is being unloaded: 1 answer is running",
    ),
    "the gateway stops": Case(
        (A,), [*loaded("a"), (1, ShutDown(), ["drain 1"])], 2,
        "ends with the gateway: 1 answer is running",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_it_will_do_next(case: Case) -> None:
    subject = scheduler(*case.variants, window_s=case.window_s)
    play(subject, case.steps)
    prospects = Prospects(subject.state, subject.window_s, case.now)
    assert prospects.of(subject.state.engines[1]) == case.next
