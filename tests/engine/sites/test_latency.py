"""How slow sites are next to each other, and for how long that counts."""

from __future__ import annotations

import pytest

from trio_gateway.engine.sites.latency import HALF_LIFE_S, SLOWEST, Smoothed, slowness


def measured(seconds: float | None) -> Smoothed:
    smoothed = Smoothed()
    if seconds is not None:
        smoothed.note(seconds, 0.0)
    return smoothed


def compared(*seconds: float | None, now: float = 0.0) -> list[float]:
    return slowness([measured(s) for s in seconds], [measured(None) for _ in seconds], now)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ((None, None), [1, 1]),
        ((1.0, None), [1, 1]),  # it has yet to show it
        ((0.4, 0.9), [1, 2]),
        ((0.002, 0.02), [1, 1]),  # that is the network
        ((1.0, 1.2), [1, 1]),
        ((0.4, 60.0), [1, SLOWEST]),
        ((1.0, 0.0, None), [SLOWEST, 1, 1]),
    ],
)
def test_each_is_compared_with_the_fastest(
    seconds: tuple[float | None, ...], found: list[float]
) -> None:
    assert compared(*seconds) == pytest.approx(found)


def test_one_without_streams_is_told_by_its_health_checks() -> None:
    streams = [measured(0.5), measured(None), measured(None)]
    checks = [measured(0.01), measured(0.01), measured(0.12)]
    assert slowness(streams, checks, 0.0) == pytest.approx([1.0, 1.0, 2.0])


def test_what_was_slow_long_ago_is_tried_again() -> None:
    assert compared(0.4, 0.9, now=HALF_LIFE_S) == pytest.approx([1.0, 1.5])
    assert compared(0.4, 0.9, now=3 * HALF_LIFE_S) == [1.0, 1.0]
    assert compared(0.1, 100.0, now=5 * HALF_LIFE_S) == [1.0, 1.0]


def test_a_time_is_smoothed_and_an_old_one_counts_less() -> None:
    smoothed = measured(1.0)
    smoothed.note(2.0, 0.1)
    assert smoothed.value == pytest.approx(1.2)
    smoothed.note(2.2, 0.1 + HALF_LIFE_S)
    assert smoothed.value == pytest.approx(1.7)
    smoothed.note(5.0, 1e6)
    assert smoothed.value == pytest.approx(5.0)
