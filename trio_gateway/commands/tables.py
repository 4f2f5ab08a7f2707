"""The tables of `status`, `requests` and `top`. Pure: rows of a gateway's pages go in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from trio_gateway.commands import words

Row = Mapping[str, Any]

_STATE_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "draining": "magenta",
    "stopping": "dim",
    "failed": "red",
}
_OUTCOME_STYLES = {"ok": "green", "client_gone": "dim", "cancelled": "dim"}


def engines_table(engines: Sequence[Row]) -> Table:
    table = _table("model", "variant", "state", "busy", "context", "memory", "speed", "next")
    for row in engines:
        state = str(row["state"])
        table.add_row(
            _plain(row["model"]),
            _plain(row["variant"]),
            Text(state, _STATE_STYLES.get(state, "")),
            f"{row['leases']} of {row['slots'] or '?'}",
            words.count(row["context"]),
            words.size(row.get("memory_bytes")),
            words.speed(row.get("speed")),
            _plain(row.get("next") or _loading(row)),
        )
    return table


def _loading(row: Row) -> str:
    if row.get("loading_s") is None:
        return ""
    return f"loading for {words.seconds(row['loading_s'])}"


def waiting_table(waiting: Sequence[Row]) -> Table:
    table = _table("", "model", "client", "waited", "what it waits for")
    for row in waiting:
        table.add_row(
            str(row.get("position") or ""),
            _plain(row.get("model") or row.get("asked")),
            _plain(row.get("client")),
            words.seconds(row.get("waited_s", row.get("took_s"))),
            _plain(row.get("sentence")),
        )
    return table


def requests_table(requests: Sequence[Row]) -> Table:
    """Those that are over, or run."""
    table = _table(
        "time", "id", "model", "client", "decision", "waited", "first byte", "took",
        "prompt", "cached", "answer", "speed", "result",
    )  # fmt: skip
    for row in requests:
        waited_s = (row.get("waited_s") or 0.0) + (row.get("load_s") or 0.0)
        variant = f":{row['variant']}" if row.get("variant") else ""
        table.add_row(
            words.clock(row["arrived_s"]),
            str(row["id"])[:8],
            _plain(f"{row.get('model') or row.get('asked') or '-'}{variant}"),
            _plain(row.get("client")),
            _plain(row.get("decision")),
            words.seconds(waited_s if row.get("decision") else None),
            words.seconds(row.get("first_byte_after_s")),
            words.seconds(row.get("took_s")),
            words.count(row.get("prompt_tokens")),
            words.count(row.get("cached_tokens")),
            words.count(row.get("generated_tokens")),
            words.speed(row.get("speed")),
            _result(row),
        )
    return table


def _result(row: Row) -> Text:
    outcome = row.get("outcome")
    if outcome is None:
        return Text(str(row.get("stage") or ""), "cyan")
    said = row.get("error") or row.get("finish") or ""
    style = _OUTCOME_STYLES.get(outcome, "red")
    return Text(f"{outcome}: {said}" if said and outcome != "ok" else str(said or outcome), style)


def pools_table(pools: Sequence[Row], width: int = 30) -> Table:
    table = _table("pool", "memory", "", "others hold")
    for row in pools:
        limit, used = row.get("memory_bytes"), row.get("used_bytes") or 0
        text = words.size(used) + (f" of {words.size(limit)}" if limit else "")
        other = row.get("other_bytes")
        table.add_row(_plain(row["name"]), text, bar(used, limit, other, width), words.size(other))
    return table


def bar(used: int, limit: int | None, other: int | None, width: int) -> Text:
    """Ours, then what others hold, then what is free; empty where there is no limit."""
    if not limit:
        return Text("")
    ours = min(round(used / limit * width), width)
    theirs = min(round((other or 0) / limit * width), width - ours)
    return Text.assemble(
        ("█" * ours, "cyan"), ("▒" * theirs, "yellow"), ("░" * (width - ours - theirs), "dim")
    )


def models_table(models: Sequence[Row]) -> Table:
    table = _table("model", "pool", "state", "variants", "pinned")
    for row in models:
        variants = ", ".join(f"{variant['context']:,}" for variant in row.get("variants") or ())
        table.add_row(
            _plain(row["name"]), _plain(row.get("pool")), _plain(row.get("state")), variants,
            "yes" if row.get("pinned") else "",
        )  # fmt: skip
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)
    for column in columns:
        table.add_column(
            column, overflow="fold" if column in _LONG else "ellipsis", no_wrap=column not in _LONG
        )
    return table


_LONG = frozenset({"next", "what it waits for", "variants"})


def _plain(value: object) -> Text:
    """Names and texts come from elsewhere: no markup, no escape sequences."""
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else "�" for c in text))
