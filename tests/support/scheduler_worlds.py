"""Any world of a scheduler, and whatever may happen in it, for hypothesis to draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hypothesis import strategies as st

from tests.support.edits import Edit
from tests.support.memory_world import divided
from tests.support.scheduler_world import World
from tests.support.shared_memory import RESERVE
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import (
    VariantFacts,
    VariantKey,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler

NEEDS = (20, 50, 100, 150, 400)
CONTEXTS = (100, 200, 400)
ENDPOINTS = (None, None, None, "http://127.0.0.1:8081", "http://127.0.0.1:8082")
BYTES = (20, 40, 60, 100, 130)
MEMORY = (None, None, 100)


@st.composite
def a_pool(draw: st.DrawFn, name: str, most: int) -> PoolConfig:
    engines = draw(st.integers(1, most))
    match draw(st.integers(0, 6)):
        case 0:
            return PoolConfig(name, engines, memory_auto=True, reserve=RESERVE)
        case 1:
            declared = draw(st.sampled_from((None, 70)))
            return divided(name, engines=engines, declared=declared)
    return PoolConfig(name, engines, draw(st.sampled_from(MEMORY)))


@st.composite
def worlds(
    draw: st.DrawFn, scheduler: Callable[..., Scheduler] = Scheduler, *, counting: bool = False
) -> World:
    """`counting`: its pools do nothing but count their engines."""
    pools = {name: draw(a_pool(name, most)) for name, most in (("p", 3), ("q", 2))}
    if counting:
        pools = {name: PoolConfig(name, pool.engines) for name, pool in pools.items()}
    variants = []
    for model in "abcd":
        pool, pinned = draw(st.sampled_from("ppq")), draw(st.booleans())
        for context in CONTEXTS[: draw(st.integers(1, len(CONTEXTS)))]:
            memory_bytes = draw(st.sampled_from((None, *BYTES)))
            variants.append(
                VariantFacts(
                    key=VariantKey(model, str(context)),
                    pool=pool,
                    context=context,
                    endpoint=None if counting else draw(st.sampled_from(ENDPOINTS)),
                    idle_timeout_s=draw(st.sampled_from((5.0, 60.0))),
                    pinned=pinned,
                    memory_bytes=memory_bytes,
                    memory_declared=memory_bytes is not None and draw(st.booleans()),
                    load_time_s=draw(st.sampled_from((0.0, 2.0, 10.0))),
                    devices=draw(st.sampled_from((1, 1, 2))),
                )
            )
    subject = scheduler(
        variants,
        pools,
        queue_limit=draw(st.sampled_from((3, 20))),
        queue_timeout_s=draw(st.sampled_from((30.0, 3000.0))),
        fairness_window_s=draw(st.sampled_from((0.0, 0.5, 5.0))),
    )
    return World(subject, pools, {facts.key: facts for facts in variants})


class Do(NamedTuple):
    """Something that happens to a world."""

    what: Callable[..., None]
    arguments: tuple[object, ...]

    def __repr__(self) -> str:
        return f"{self.what.__name__}{self.arguments}"


def every(what: Callable[..., None], *choices: Iterable[object]) -> st.SearchStrategy[Do]:
    return st.sampled_from([Do(what, arguments) for arguments in itertools.product(*choices)])


CHOICE = range(6)
ARRIVALS = every(
    World.arrive,
    "aaabbcd",
    NEEDS,
    (0, 0, 60, 300),
    "xxyz",
    (Priority.INTERACTIVE, *Priority),
    (None, 0, 10, 60),
)
COUNTS = every(World.count_comes, CHOICE, (None, 0, 30, 100))
READIES = every(
    World.engine_gets_ready, CHOICE, (1, 2, 3), (100, 100, 100, 100, 60, 120), (None, 60, 100, 150)
)
RETURNS = every(World.lease_ends, CHOICE)
EXITS = every(World.engine_exits, CHOICE)
WAITS = every(World.time_passes, (0.5, 1.0, 4.9, 5.0, 31.0, 100.0))
MISHAPS = st.one_of(
    every(World.client_leaves, CHOICE),
    every(World.start_fails, CHOICE),
    every(World.engine_crashes, CHOICE),
    every(World.engine_is_measured, CHOICE, BYTES),
    every(World.is_unloaded, "abcd"),
    every(World.is_kept, "abcd", (None, 5.0, 60.0), (True, False)),
    every(World.is_reconfigured, Edit, "abcd"),
)
OTHERS = (0, 0, 20, 60, 100, None)  # bytes that other programs hold
LOOKS = every(World.look_comes, CHOICE, OTHERS)
TAKEN = st.one_of(
    every(World.memory_is_seen, "pq", OTHERS),
    every(World.is_yielded, "pq", (5, 30, 90), (3.0, 20.0, math.inf)),
    every(World.yield_ends, CHOICE),
)
HAPPENING = st.one_of(
    ARRIVALS, ARRIVALS, ARRIVALS, READIES, READIES, RETURNS, COUNTS, EXITS, WAITS, MISHAPS, LOOKS,
    TAKEN,
)  # fmt: skip
# Long ones are where it gets difficult, short ones are what a failing one shrinks to.
HAPPENINGS = st.one_of(
    st.lists(HAPPENING, min_size=15, max_size=60),
    st.lists(HAPPENING, min_size=30, max_size=60),
    st.lists(HAPPENING, max_size=60),
)
