"""The ratios of an earlier run, kept in benchmarks/baseline.json, and what moved since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.relay.figures import Ratios

FILE = Path(__file__).parent.parent / "baseline.json"
MOVED = 0.10  # of the ratio that is kept


class Baseline(msgspec.Struct, omit_defaults=True):
    """`measured_on`: the machine and its Python, of each table."""

    ratios: dict[str, Ratios] = {}
    measured_on: dict[str, str] = {}


def read(file: Path = FILE) -> Baseline:
    return msgspec.json.decode(file.read_bytes(), type=Baseline) if file.exists() else Baseline()


def update(measured: Mapping[str, Ratios], machine: str, file: Path = FILE) -> None:
    """Tables that were not measured now stay as they are."""
    kept = read(file)
    for table, ratios in measured.items():
        kept.ratios[table] = ratios
        kept.measured_on[table] = machine
    file.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")


def moved(measured: Mapping[str, Ratios], kept: Baseline) -> list[str]:
    """A line for each ratio that is another now, those of rows that are not ours included: if they
    moved as well, it was the machine."""
    lines = []
    for table, rows in measured.items():
        for row, figures in rows.items():
            for figure, now in figures.items():
                before = kept.ratios.get(table, {}).get(row, {}).get(figure)
                if before and abs(now / before - 1) > MOVED:
                    change = f"{before:.2f} → {now:.2f} ({now / before - 1:+.0%})"
                    lines.append(f"{table}, {row}, {figure}: {change}")
    return lines
