"""Any world of a scheduler, for hypothesis to draw."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.scheduler_world import World
from trio_gateway.config.schema import PoolConfig
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
def worlds(draw: st.DrawFn) -> World:
    pools = {
        name: PoolConfig(name, draw(st.integers(1, most)), draw(st.sampled_from(MEMORY)))
        for name, most in (("p", 3), ("q", 2))
    }
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
                    endpoint=draw(st.sampled_from(ENDPOINTS)),
                    idle_timeout_s=draw(st.sampled_from((5.0, 60.0))),
                    pinned=pinned,
                    memory_bytes=memory_bytes,
                    memory_declared=memory_bytes is not None and draw(st.booleans()),
                    load_time_s=draw(st.sampled_from((0.0, 2.0, 10.0))),
                )
            )
    subject = Scheduler(
        variants,
        pools,
        queue_limit=draw(st.sampled_from((3, 20))),
        queue_timeout_s=draw(st.sampled_from((30.0, 3000.0))),
        fairness_window_s=draw(st.sampled_from((0.0, 0.5, 5.0))),
    )
    return World(subject, pools, {facts.key: facts for facts in variants})
