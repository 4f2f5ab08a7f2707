"""How fast sites answer: smoothed times, and how slow each is next to the others. Pure."""

from __future__ import annotations

from collections.abc import Sequence

NEW_SHARE = 0.2  # of each new time
HALF_LIFE_S = 60.0  # what was measured then counts half
# Differences below it come from the network and the moment: an answer takes seconds.
FLOOR_S = 0.1
SLOWEST = 4.0  # at most it counts so many times
EVEN = 1.25  # below it, nobody is slower


class Smoothed:
    """A time that is measured again and again, in seconds; None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.at = 0.0

    def __repr__(self) -> str:
        return f"Smoothed({self.value} at {self.at})"

    def note(self, seconds: float, now: float) -> None:
        if self.value is None:
            self.value = seconds
        else:
            share = max(NEW_SHARE, 1 - 0.5 ** ((now - self.at) / HALF_LIFE_S))
            self.value += share * (seconds - self.value)
        self.at = now


def slowness(
    first_bytes: Sequence[Smoothed], checks: Sequence[Smoothed], now: float
) -> list[float]:
    """Of each site: 1, or how many times as long as the fastest it takes, up to SLOWEST.

    A site is told by the first bytes of its streams or, where it has sent none, by its answers to
    health checks. What was measured long ago fades: a site that was slow once is tried again.
    """
    return [
        _compared(first_byte, first_bytes, now)
        if first_byte.value is not None
        else _compared(check, checks, now)
        for first_byte, check in zip(first_bytes, checks, strict=True)
    ]


def _compared(one: Smoothed, all_of_them: Sequence[Smoothed], now: float) -> float:
    if one.value is None:
        return 1.0
    fastest = min(other.value for other in all_of_them if other.value is not None)
    more = min((one.value + FLOOR_S) / (fastest + FLOOR_S), SLOWEST) - 1.0
    faded = 1.0 + more * 0.5 ** (max(now - one.at, 0.0) / HALF_LIFE_S)
    return faded if faded >= EVEN else 1.0
