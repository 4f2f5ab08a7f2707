"""The states of an engine: which moves there are, and no others."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.scheduling.lifecycle import (
    TRANSITIONS,
    EngineState,
    IllegalTransition,
    move,
)

STARTING, READY, DRAINING = EngineState.STARTING, EngineState.READY, EngineState.DRAINING
STOPPING, STOPPED, FAILED = EngineState.STOPPING, EngineState.STOPPED, EngineState.FAILED

ALLOWED = [
    (STARTING, READY),
    (STARTING, STOPPING),
    (STARTING, FAILED),
    (READY, DRAINING),
    (READY, STOPPING),
    (READY, FAILED),
    (DRAINING, READY),
    (DRAINING, STOPPING),
    (DRAINING, FAILED),
    (STOPPING, STOPPED),
    (STOPPING, FAILED),
]
FORBIDDEN = [pair for pair in itertools.product(EngineState, repeat=2) if pair not in ALLOWED]


def name_of(pair: tuple[EngineState, EngineState]) -> str:
    return f"{pair[0].value}-{pair[1].value}"


@pytest.mark.parametrize("pair", ALLOWED, ids=name_of)
def test_an_engine_may_move(pair: tuple[EngineState, EngineState]) -> None:
    assert move(*pair) is pair[1]


@pytest.mark.parametrize("pair", FORBIDDEN, ids=name_of)
def test_an_engine_may_not_move(pair: tuple[EngineState, EngineState]) -> None:
    with pytest.raises(IllegalTransition, match=f"{pair[0].value} → {pair[1].value}"):
        move(*pair)


def test_stopped_and_failed_are_final_and_nothing_else_is() -> None:
    assert {state for state in EngineState if not TRANSITIONS[state]} == {STOPPED, FAILED}


def test_every_state_that_is_not_final_may_fail() -> None:
    assert all(FAILED in TRANSITIONS[state] for state in EngineState if TRANSITIONS[state])


def test_no_way_comes_back_but_from_draining_to_ready() -> None:
    forward = [STARTING, READY, DRAINING, STOPPING, STOPPED, FAILED]
    back = [(one, to) for one, to in ALLOWED if forward.index(to) < forward.index(one)]
    assert back == [(DRAINING, READY)]


@given(st.data())
def test_an_engine_whose_drains_are_never_called_off_is_in_no_state_twice(
    data: st.DataObject,
) -> None:
    state, way = STARTING, [STARTING]
    while TRANSITIONS[state]:
        moves = TRANSITIONS[state] - ({READY} if state is DRAINING else set())
        state = move(state, data.draw(st.sampled_from(sorted(moves, key=str))))
        way.append(state)
    assert len(way) == len(set(way)) <= 5
