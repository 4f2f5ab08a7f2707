"""What is measured of each target, and its ratios to the row `raw` of the same round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from benchmarks.relay.targets import RAW


class Sense(Enum):
    """Which way is better."""

    LOW = "≤"
    HIGH = "≥"


class Column(NamedTuple):
    """`to_reach` is the gateway's ratio to `raw`; None: nothing is promised."""

    title: str
    digits: int = 0
    to_reach: float | None = None
    sense: Sense = Sense.LOW


class Figure(Enum):
    """One for each round of each target; the names are the keys of baseline.json."""

    REQUEST = Column("request ms, p50", 2, 2.5)
    REQUEST_P99 = Column("request p99", 2)
    FIRST_1 = Column("first byte ms, 1 client, p50", 2, 1.3)
    FIRST_1_P99 = Column("1 client, p99", 2)
    FIRST_16 = Column("first byte ms, 16 clients, p50", 2, 1.4)
    FIRST_16_P99 = Column("16 clients, p99", 1)
    CPU_REQUEST = Column("CPU µs / request", 0, 3.6)
    CPU_CHUNK = Column("CPU µs / chunk", 1, 1.2)
    GAP_FASTEST = Column("chunk gap p99 ms, fastest stream", 1)
    GAP_SLOWEST = Column("slowest", 1)
    BURST = Column("burst, 1,000 chunks/s", 0, 0.8, Sense.HIGH)
    RSS_IDLE = Column("RSS MB idle")
    RSS_AFTER = Column("after")


RSS = (Figure.RSS_IDLE, Figure.RSS_AFTER)
RSS_TO_REACH_MB = {Figure.RSS_IDLE: 60.0, Figure.RSS_AFTER: 75.0}
# They say how the others are to be read; one slow moment of the machine decides them.
NOT_KEPT = frozenset(
    {Figure.REQUEST_P99, Figure.FIRST_1_P99, Figure.FIRST_16_P99}
    | {Figure.GAP_FASTEST, Figure.GAP_SLOWEST}
)
Ratios = dict[str, dict[str, float]]  # of each row, by the figure's name


@dataclass
class Table:
    """The figures of each target in each round, in the order in which they were measured."""

    name: str
    rows: dict[str, list[dict[Figure, float]]] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """Those that were measured of any target."""
        seen = {figure for rounds in self.rows.values() for one in rounds for figure in one}
        return [figure for figure in Figure if figure in seen]

    def median(self, row: str, figure: Figure) -> float | None:
        values = [one[figure] for one in self.rows[row] if figure in one]
        return statistics.median(values) if values else None

    def ratio(self, row: str, figure: Figure) -> float | None:
        """To `raw` of the same round, the median of all rounds; None: one of the two has none."""
        pairs = zip(self.rows[row], self.rows[RAW], strict=True)
        ratios = [a[figure] / b[figure] for a, b in pairs if figure in a and b.get(figure)]
        return statistics.median(ratios) if ratios else None

    def ratios(self) -> Ratios:
        """All that are kept."""
        return {
            row: {
                figure.name.lower(): round(ratio, 3)
                for figure in self.figures()
                if figure not in NOT_KEPT and (ratio := self.ratio(row, figure)) is not None
            }
            for row in self.rows
            if row != RAW
        }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float], middle: Figure, late: Figure) -> Mapping[Figure, float]:
    """Seconds, as p50 and p99 in ms."""
    return {middle: percentile(values, 0.5) * 1e3, late: percentile(values, 0.99) * 1e3}
