"""A site that has failed is left alone, asked again, and let in by one request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.sites.circuit import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Circuit,
    CircuitState,
    Use,
)

CHECK_S = 15.0


def failed(*, by_request: bool = True) -> Circuit:
    """Open since 0.0."""
    circuit = Circuit(CHECK_S)
    circuit.note_good(-1.0, of_request=True)
    circuit.note_bad(0.0, "it broke", of_request=by_request)
    return circuit


def test_one_that_was_not_tried_comes_after_those_that_work() -> None:
    circuit = Circuit()
    assert (circuit.state(0.0), circuit.use(0.0)) == (CircuitState.UNTRIED, Use.UNKNOWN)
    assert Circuit().works is None
    assert circuit.note_good(1.0, of_request=False)
    assert (circuit.state(1.0), circuit.use(1.0)) == (CircuitState.WORKS, Use.GOOD)
    assert (circuit.works, circuit.since) == (True, 1.0)
    assert not circuit.note_good(2.0, of_request=True)  # no news


def test_one_that_fails_is_open_with_the_reason_and_its_pause() -> None:
    circuit = failed()
    assert (circuit.state(0.0), circuit.use(0.0)) == (CircuitState.OPEN, Use.LAST_RESORT)
    assert (circuit.works, circuit.since) == (False, 0.0)
    assert (circuit.why, circuit.retry_at) == ("it broke", FIRST_PAUSE_S)
    assert not circuit.may_check(0.5)
    assert not circuit.begin(0.5)


def test_after_its_pause_a_check_asks_first_and_then_one_request_is_let_in() -> None:
    circuit, now = failed(), FIRST_PAUSE_S
    assert circuit.state(now) is CircuitState.HALF_OPEN
    assert circuit.awaits_check(now)
    assert circuit.use(now) is Use.LAST_RESORT
    assert not circuit.note_good(now, of_request=False)
    assert not circuit.awaits_check(now)
    assert (circuit.use(now), circuit.begin(now)) == (Use.GOOD, True)
    assert (circuit.use(now), circuit.begin(now)) == (Use.LAST_RESORT, False)  # the others
    circuit.end_trial()  # it was cancelled, which says nothing
    assert (circuit.use(now), circuit.begin(now)) == (Use.GOOD, True)
    assert circuit.note_good(now, of_request=True)
    circuit.end_trial()
    assert (circuit.works, circuit.why, circuit.use(now)) == (True, "", Use.GOOD)


def test_what_only_checks_found_bad_is_good_after_a_check() -> None:
    circuit = failed(by_request=False)
    assert circuit.note_good(FIRST_PAUSE_S, of_request=False)
    assert circuit.works


def test_a_trial_that_fails_doubles_the_pause_whatever_checks_say() -> None:
    circuit, now, pauses = failed(), 0.0, []
    for _ in range(9):
        pauses.append(circuit.retry_at - now)
        now = circuit.retry_at
        circuit.note_good(now, of_request=False)
        assert circuit.begin(now)
        assert circuit.note_bad(now, "HTTP 503", of_request=True)
        circuit.end_trial()
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert circuit.since == 0.0


def test_checks_never_wait_longer_than_they_are_apart() -> None:
    circuit, now, pauses = failed(by_request=False), 0.0, []
    for _ in range(6):
        pauses.append(circuit.retry_at - now)
        now = circuit.retry_at
        circuit.note_bad(now, "nothing answers there", of_request=False)
    assert pauses == [1, 2, 4, 8, CHECK_S, CHECK_S]


def test_a_request_that_goes_well_makes_the_next_pause_short_again() -> None:
    circuit = failed()
    for _ in range(5):
        circuit.note_bad(circuit.retry_at, "it broke", of_request=True)
    now = circuit.retry_at - 1.0
    circuit.note_good(now, of_request=True)  # a last resort, in the middle of its pause
    assert circuit.works
    circuit.note_bad(now, "it broke", of_request=True)
    assert circuit.retry_at == now + FIRST_PAUSE_S


def test_requests_that_fail_together_are_one_failure() -> None:
    circuit = failed()
    for _ in range(20):
        assert not circuit.note_bad(0.1, "so did this", of_request=True)
    assert (circuit.retry_at, circuit.why) == (FIRST_PAUSE_S, "so did this")


def test_a_check_that_was_under_way_when_it_failed_says_nothing() -> None:
    circuit = failed(by_request=False)
    assert not circuit.note_good(0.1, of_request=False)
    assert circuit.state(0.1) is CircuitState.OPEN


STEPS: dict[str, Callable[[Circuit, float], object]] = {
    "a request goes well": lambda c, now: c.note_good(now, of_request=True),
    "a request fails": lambda c, now: c.note_bad(now, "x", of_request=True),
    "a check goes well": lambda c, now: c.note_good(now, of_request=False),
    "a check fails": lambda c, now: c.note_bad(now, "x", of_request=False),
    "a trial ends": lambda c, now: c.end_trial(),
}


@given(st.lists(st.tuples(st.sampled_from([*STEPS]), st.floats(0.0, 100.0)), max_size=30))
def test_whatever_happens(steps: list[tuple[str, float]]) -> None:
    """It is asked again within a minute, one request at most is let in, and what goes well closes
    it."""
    circuit, now = Circuit(CHECK_S), 0.0
    for name, later in steps:
        now += later
        STEPS[name](circuit, now)
        if name == "a request goes well":
            assert circuit.use(now) is Use.GOOD
        is_open = circuit.state(now) in (CircuitState.OPEN, CircuitState.HALF_OPEN)
        assert is_open == (circuit.works is False) == bool(circuit.why)
        if is_open:
            assert circuit.retry_at - now <= LONGEST_PAUSE_S
            assert circuit.may_check(max(now, circuit.retry_at))
        let_in = [circuit.begin(now) for _ in range(3)]
        assert sum(let_in) <= 1
        assert circuit.works or circuit.use(now) is not Use.GOOD


@pytest.mark.parametrize("by_request", [False, True])
def test_pauses_stay_short_for_as_long_as_it_fails(by_request: bool) -> None:
    circuit = Circuit()
    for _ in range(2000):
        now = max(circuit.retry_at, 0.0)
        circuit.note_bad(now, "x", of_request=by_request)
        assert circuit.retry_at - now <= LONGEST_PAUSE_S
