"""The figures as tables to read: absolute ones, ratios to `raw`, and what is to be reached."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table

from benchmarks.relay.figures import NOT_KEPT, RSS, RSS_TO_REACH_MB, Figure, Table
from benchmarks.relay.targets import OURS, RAW

# Shown in the cell of the figure before.
SECOND = frozenset(
    {Figure.REQUEST_P99, Figure.FIRST_1_P99, Figure.FIRST_16_P99}
    | {Figure.GAP_SLOWEST, Figure.RSS_AFTER}
)
NONE = "-"


def absolute(table: Table) -> rich.table.Table:
    return absolutes([table], table.name)


def absolutes(tables: Sequence[Table], title: str) -> rich.table.Table:
    """One below the other; they have the same figures."""
    figures = tables[0].figures()
    shown = _empty(title, _titles(figures))
    for table in tables:
        if len(tables) > 1:
            shown.add_section()
            shown.add_row(f"{table.name}:")
        for row in table.rows:
            shown.add_row(row, *_cells(table, row, figures))
    return shown


def relative(table: Table) -> rich.table.Table:
    figures = [figure for figure in table.figures() if figure not in NOT_KEPT | {*RSS}]
    shown = _empty(f"{table.name}: ratios to `{RAW}`", _titles(figures))
    for row in table.rows:
        shown.add_row(row, *(_times(table.ratio(row, figure)) for figure in figures))
    shown.add_section()
    shown.add_row("to reach", *(_to_reach(figure) for figure in figures))
    return shown


def together(tables: Sequence[Table], title: str) -> rich.table.Table:
    """The gateway's ratios in each of several tables."""
    figures = [figure for figure in Figure if figure.value.to_reach is not None]
    shown = _empty(title, _titles(figures))
    for table in tables:
        shown.add_row(table.name, *(_times(table.ratio(OURS, figure)) for figure in figures))
    shown.add_section()
    shown.add_row("to reach", *(_to_reach(figure) for figure in figures))
    return shown


def memory_to_reach() -> str:
    idle, after = (RSS_TO_REACH_MB[figure] for figure in RSS)
    return f"Memory to reach: ≤ {idle:g} MB idle, ≤ {after:g} MB after."


def _empty(title: str, columns: Sequence[str]) -> rich.table.Table:
    shown = rich.table.Table(title=title)
    shown.add_column(no_wrap=True)
    for column in columns:
        shown.add_column(column)
    return shown


def _titles(figures: Sequence[Figure]) -> list[str]:
    """One for each cell: `p50 ms / p99`."""
    titles: list[str] = []
    for figure in figures:
        if figure in SECOND:
            titles[-1] += f" / {figure.value.title}"
        else:
            titles.append(figure.value.title)
    return titles


def _cells(table: Table, row: str, figures: Sequence[Figure]) -> list[str]:
    cells: list[str] = []
    for figure in figures:
        value = table.median(row, figure)
        text = NONE if value is None else f"{value:.{figure.value.digits}f}"
        if figure not in SECOND:
            cells.append(text)
        elif value is not None:
            cells[-1] += f" / {text}"
    return cells


def _times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def _to_reach(figure: Figure) -> str:
    column = figure.value
    if column.to_reach is None:
        return ""
    return f"{column.sense.value} {column.to_reach:g}"
