"""The tables of `status`, `requests` and `top`. Pure: rows of a gateway's pages go in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
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
_SITE_STYLES = {"works": "green", "untried": "dim"}
_SAY_ENOUGH = frozenset({"client_gone", "cancelled"})  # of themselves


PIPE_WIDTH = 200  # where there is no terminal that has one


def console(*, stderr: bool = False) -> Console:
    """For stdout, or stderr. Names come from elsewhere, so nothing in them is markup."""
    found = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = PIPE_WIDTH
    return found


# What a narrow terminal leaves out: below so many columns of text.
_ENGINES_NEED = {"busy": 50, "variant": 60, "speed": 70, "memory": 75, "context": 80}
_POOLS_NEED = {"others hold": 60, "": 80}
BAR = 30  # columns of a pool's memory
_WAITING_NEEDS = {"waited": 50, "client": 70}


def engines_table(engines: Sequence[Row], width: int = 200) -> Table:
    shown = [_engine_cells(row) for row in engines]
    return _fitted(shown, _engine_cells(_NO_ENGINE), _ENGINES_NEED, width)


_NO_ENGINE: Row = {
    "model": "", "variant": "", "state": "", "leases": 0, "slots": 0, "context": 0
}  # fmt: skip


def _engine_cells(row: Row) -> dict[str, str | Text]:
    state = str(row["state"])
    return {
        "model": _plain(row["model"]),
        "variant": _plain(row["variant"]),
        "state": Text(state, _STATE_STYLES.get(state, "")),
        "busy": f"{row['leases']} of {row['slots'] or '?'}",
        "context": words.count(row["context"]),
        "memory": words.size(row.get("memory_bytes")),
        "speed": words.speed(row.get("speed")),
        "next": _plain(row.get("next") or _loading(row)),
    }


def _loading(row: Row) -> str:
    if row.get("loading_s") is None:
        return ""
    doing = "waking" if row.get("waking") else "loading"
    return f"{doing} for {words.seconds(row['loading_s'])}"


def sites_table(engines: Sequence[Row]) -> Table | None:
    """The URLs of remote models; None: there are none worth a word."""
    rows = [
        (row["model"], site)
        for row in engines
        if len(sites := row.get("sites") or ()) > 1 or any(s["state"] != "works" for s in sites)
        for site in sites
    ]
    if not rows:
        return None
    table = _table("model", "url", "state", "requests", "in all", "first byte", "why")
    for model, site in rows:
        told = site.get("peer_running"), site.get("peer_waiting")
        table.add_row(
            _plain(model),
            _plain(site["url"]),
            Text(site["state"], _SITE_STYLES.get(site["state"], "red")),
            str(site.get("requests") or 0),
            words.NOTHING if None in told else f"{told[0]} + {told[1]} waiting",
            words.seconds(site.get("first_byte_s")),
            _plain(site.get("reason")),
        )
    return table


def waiting_table(waiting: Sequence[Row], width: int = 200) -> Table:
    shown = [_waiting_cells(row) for row in waiting]
    return _fitted(shown, _waiting_cells({}), _WAITING_NEEDS, width)


def _waiting_cells(row: Row) -> dict[str, str | Text]:
    return {
        "": str(row.get("position") or ""),
        "model": _plain(row.get("model") or row.get("asked")),
        "client": _plain(row.get("client")),
        "waited": words.seconds(row.get("waited_s", row.get("took_s"))),
        "what it waits for": _plain(row.get("sentence")),
    }


# What a narrow terminal leaves out first: below so many columns of text.
_NEEDS_WIDTH = {
    "id": 80, "took": 80, "client": 100, "decision": 110, "cached": 120, "first byte": 130,
    "prompt": 90, "waited": 90, "speed": 60, "answer": 50, "time": 45,
}  # fmt: skip


def requests_table(requests: Sequence[Row], width: int = 200) -> Table:
    """Those that are over, or run. `width`: of the terminal, in characters."""
    shown = [_request_cells(row) for row in requests]
    return _fitted(shown, _request_cells(_EMPTY), _NEEDS_WIDTH, width)


_EMPTY: Row = {"arrived_s": 0.0, "id": ""}


def _request_cells(row: Row) -> dict[str, str | Text]:
    waited_s = (row.get("waited_s") or 0.0) + (row.get("load_s") or 0.0)
    variant = f":{row['variant']}" if row.get("variant") else ""
    chosen = f"{row.get('asked')} → " if row.get("choice") else ""
    return {
        "time": words.clock(row["arrived_s"]),
        "id": str(row["id"]),
        "model": _plain(f"{chosen}{row.get('model') or row.get('asked') or '-'}{variant}"),
        "client": _plain(row.get("client")),
        "decision": _plain(row.get("decision")),
        "waited": words.seconds(None if row.get("waited_s") is None else waited_s),
        "first byte": words.seconds(row.get("first_byte_after_s")),
        "took": words.seconds(row.get("took_s")),
        "prompt": words.count(row.get("prompt_tokens")),
        "cached": words.count(row.get("cached_tokens")),
        "answer": words.count(row.get("generated_tokens")),
        "speed": words.speed(row.get("speed")),
        "result": _result(row),
    }


def _result(row: Row) -> Text:
    outcome = row.get("outcome")
    if outcome is None:
        return Text(str(row.get("stage") or ""), "cyan")
    words_of = outcome.replace("_", " ")
    if outcome in _SAY_ENOUGH:
        return Text(words_of, "dim")
    said = row.get("error") or row.get("finish") or ""
    if outcome == "ok":
        return Text(said or "ok", "green")
    return Text(f"{words_of}: {said}" if said else words_of, "red")


def pools_table(pools: Sequence[Row], width: int = 200) -> Table:
    return _fitted(
        [_pool_cells(row) for row in pools], _pool_cells({"name": ""}), _POOLS_NEED, width
    )


def _pool_cells(row: Row) -> dict[str, str | Text]:
    limit, used = row.get("memory_bytes"), row.get("used_bytes") or 0
    other, yielded = row.get("other_bytes"), row.get("yielded_bytes") or 0
    told = f", {words.size(yielded)} yielded" if yielded else ""
    # What is left by others, with those: all that there is.
    whole = limit + (other or 0) if limit and row.get("is_auto") else limit
    return {
        "pool": _plain(row["name"]),
        "memory": words.size(used) + (f" of {words.size(limit)}" if limit else "") + told,
        "": bar(used, whole, (other or 0) + yielded, BAR),
        "others hold": words.size(other),
    }


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


def choices_table(choices: Sequence[Row]) -> Table:
    table = _table("choice", "strategy", "models", "now", "why")
    for row in choices:
        has = row["requests"]
        models = ", ".join(
            f"{name} ({has[name]})" if has.get(name) else str(name) for name in row["models"]
        )
        table.add_row(*map(_plain, (row["name"], row["strategy"], models, row["next"], row["why"])))
    return table


def _fitted(
    rows: Sequence[Mapping[str, str | Text]],
    columns: Iterable[str],
    needs: Mapping[str, int],
    width: int,
) -> Table:
    """With the columns that there is room for."""
    names = [name for name in columns if width >= needs.get(name, 0)]
    table = _table(*names)
    for cells in rows:
        table.add_row(*(cells[name] for name in names))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)
    for column in columns:
        table.add_column(
            column, overflow="fold" if column in _LONG else "ellipsis", no_wrap=column not in _LONG,
            min_width=_ID_WIDTH if column == "id" else None,
        )  # fmt: skip
    return table


_ID_WIDTH = 16  # a part of an id is none that `cancel` knows
_LONG = frozenset({"next", "what it waits for", "variants", "models", "why"})


def _plain(value: object) -> Text:
    """Names and texts come from elsewhere: no markup, no escape sequences."""
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else "�" for c in text))
