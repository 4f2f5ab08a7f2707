"""The tables of `init`: what it took, and what it left. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from trio_gateway.commands import words
from trio_gateway.finding.entry import abilities
from trio_gateway.finding.left import FAULTS, Left
from trio_gateway.finding.plan import Planned

# What a narrow terminal leaves out: below so many columns of text.
_TAKEN_NEED = {"pool": 120, "quantized": 100, "size": 90, "what it can": 70, "needs": 60}


def taken_table(models: Sequence[Planned], width: int) -> Table:
    rows = [*map(_cells, models)]
    names = [name for name in rows[0] if width >= _TAKEN_NEED.get(name, 0)] if rows else []
    table = _table(*names)
    for cells in rows:
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(planned: Planned) -> dict[str, str | Text]:
    model = planned.model
    more = f" and {len(model.files) - 1} more" if len(model.files) > 1 else ""
    return {
        "taken": _plain(model.name),
        "pool": "secondary" if planned.is_helper else "primary",
        "quantized": _plain(model.quantization),
        "size": words.size(model.size_bytes),
        "contexts": ", ".join(f"{variant.context:,}" for variant in planned.variants),
        "needs": words.size(planned.needs_bytes),
        "what it can": ", ".join(abilities(model)) or "chat",
        "file": _plain(_short(model.path) + more),
    }


def left_table(left: Sequence[Left]) -> Table:
    """What can be mended first."""
    table = _table("left out", "why")
    for entry in sorted(left, key=lambda entry: entry.why not in FAULTS):
        style = "yellow" if entry.why in FAULTS else "dim"
        table.add_row(_plain(_short(entry.path)), Text(_plain(entry.reason).plain, style))
    return table


def _short(path: str) -> str:
    """From here, or from home, if it is below."""
    here, home = os.getcwd(), os.path.expanduser("~")
    if path.startswith(f"{here}{os.sep}"):
        return path[len(here) + 1 :]
    return f"~{path[len(home) :]}" if path.startswith(f"{home}{os.sep}") else path


_WHOLE = frozenset({"pool", "quantized", "size", "needs"})


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    return table


def _plain(value: str) -> Text:
    """Names come from elsewhere: no escape sequences."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value))
