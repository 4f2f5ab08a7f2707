"""What `trio-gateway top` shows. Pure: a FeedState goes in, something for rich comes out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trio_gateway.commands.feed_state import FeedState, Row
from trio_gateway.commands.tables import (
    engines_table,
    models_table,
    pools_table,
    requests_table,
    waiting_table,
)

KEYS = "q quit   p pause   m models   ↑↓ choose   c cancel the chosen request"
RECENT_MIN = 5
ABOVE = 12  # lines that headings and the foot take


class Choice:
    """Which of the requests under way is chosen, by its id; it may be over by now."""

    def __init__(self) -> None:
        self.id: str | None = None

    def move(self, state: FeedState, step: int) -> None:
        ids = [row["id"] for row in under_way(state)]
        if not ids:
            self.id = None
            return
        at = ids.index(self.id) + step if self.id in ids else 0
        self.id = ids[max(0, min(at, len(ids) - 1))]


def under_way(state: FeedState) -> list[Row]:
    """Those that wait come first."""
    return [*state.with_stage("arriving", "waiting"), *state.with_stage("reading", "answering")]


def view(
    state: FeedState,
    choice: Choice,
    now_s: float,
    size: tuple[int, int],
    note: str,
    *,
    shows_models: bool,
) -> RenderableType:
    """`now_s`: Unix time. `size`: columns and lines of the terminal. `note`: a line for the foot,
    such as a lost connection."""
    width, height = size
    foot = Text(KEYS if not note else f"{note}   {KEYS}", "bold yellow" if note else "dim")
    if not state.is_complete:
        return Group(Text("Waiting for the gateway…"), foot)
    waiting = [_timed(row, now_s) for row in state.with_stage("arriving", "waiting")]
    running = [_timed(row, now_s) for row in state.with_stage("reading", "answering")]
    engines, parts = [*state.engines.values()], list[RenderableType]()
    if state.is_admin:
        parts += [_title("Memory"), pools_table([*state.pools.values()], width)]
    if shows_models:
        parts += [_title("Models"), models_table([*state.models.values()])]
    if state.is_admin:
        none = Text("None runs: the next request starts one.", "dim")
        parts.append(_title(f"Engines: {len(engines)}"))
        parts.append(engines_table(engines, width) if engines else none)
    else:
        parts.append(Text("This key is no admin's: these are its own requests.", "dim"))
    parts.append(_title(f"Waiting: {len(waiting)}"))
    if waiting:
        parts.append(_marked(waiting_table(waiting, width), waiting, choice))
    parts.append(_title(f"Running: {len(running)}"))
    if running:
        parts.append(_marked(requests_table(running, width), running, choice))
    used = ABOVE + len(state.pools) + len(engines) + len(waiting) + len(running)
    room = max(height - used - (len(state.models) + 2 if shows_models else 0), RECENT_MIN)
    recent = [*state.recent][-room:][::-1]
    parts.append(_title("Last requests"))
    parts.append(
        requests_table(recent, width) if recent else Text("None since the gateway started.", "dim")
    )
    return Group(*parts, foot)


def _marked(table: Table, rows: list[Row], choice: Choice) -> Table:
    for number, row in enumerate(rows):
        if row["id"] == choice.id:
            table.rows[number].style = "reverse"
    return table


def _timed(row: Row, now_s: float) -> Row:
    """With the time that has passed since it came."""
    return {**row, "took_s": max(now_s - row["arrived_s"], 0.0)}


def _title(text: str) -> Rule:
    return Rule(Text(text, "bold"), align="left", style="dim")
