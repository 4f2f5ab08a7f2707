"""Any world with a clock, for hypothesis to draw."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.support.timed_world import Ask, TimedWorld
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import (
    VariantFacts,
    VariantKey,
)

CONTEXTS = (100, 200, 400)
HAMMER = "hammer"  # a client with several requests at a time


def hammering(model: str, requests: int, lease_s: float, need: int = 100) -> list[Ask]:
    return [Ask(model, 0.0, lease_s, need)] * requests


SECONDS = st.sampled_from((0.0, 0.5, 2.0, 3.0, 7.0))
LEASES = st.sampled_from((0.7, 1.0, 4.0, 9.0))


@st.composite
def timed_worlds(draw: st.DrawFn) -> TimedWorld:
    models = "abcde"[: draw(st.integers(2, 5))]
    variants, load_s = [], {}
    for model in models:
        for context in CONTEXTS[: draw(st.sampled_from((1, 1, 2, 3)))]:
            key = VariantKey(model, str(context))
            load_s[key] = draw(st.sampled_from((1.0, 2.0, 5.0)))
            variants.append(
                VariantFacts(
                    key=key,
                    pool="p",
                    context=context,
                    load_time_s=load_s[key],
                    pinned=draw(st.booleans()),
                    idle_timeout_s=draw(st.sampled_from((1.5, 300.0))),
                )
            )
    world = TimedWorld(
        variants,
        engines=draw(st.sampled_from((1, 1, 2))),
        window_s=draw(st.sampled_from((0.0, 2.0, 10.0))),
        load_s=load_s,
        slots=draw(st.integers(1, 3)),
        shared_percent=draw(st.sampled_from((None, 100, 150))),
    )
    for stream in range(draw(st.integers(0, 4))):  # one client that never stops asking for a
        world.add_client(HAMMER, hammering("a", 40 + stream, draw(LEASES)))
    for number in range(draw(st.integers(1, 5))):
        asks = draw(
            st.lists(
                st.builds(
                    Ask,
                    st.sampled_from(models),
                    SECONDS,
                    LEASES,
                    st.sampled_from((30, 60, 100, 100, 200, 400)),
                    st.sampled_from((Priority.INTERACTIVE, *Priority)),
                    st.sampled_from((None, None, 3.0)),
                    st.sampled_from((0, 0, 150, 500)),
                    st.sampled_from((None, None, 0.1, 0.5, 1.0)),
                ),
                min_size=1,
                max_size=12,
            )
        )
        largest = {m: max(f.context for f in variants if f.key.model == m) for m in models}
        fitting = [replace(ask, need=min(ask.need, largest[ask.model])) for ask in asks]
        world.add_client(f"client {number}", fitting, starts_at=draw(SECONDS))
    return world
