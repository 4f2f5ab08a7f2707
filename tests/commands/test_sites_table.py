"""The URLs of remote models, as `trio-gateway status` shows them."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from trio_gateway.commands.tables import sites_table

GOOD = {"url": "https://a/v1", "state": "works", "requests": 2, "first_byte_s": 0.42,
        "peer_running": 5, "peer_waiting": 1}  # fmt: skip
BAD = {"url": "https://b/v1", "state": "open", "reason": "nothing answers there"}


def shown(*sites: dict[str, Any]) -> list[str] | None:
    table = sites_table([{"model": "m", "sites": [*sites]}, {"model": "local"}])
    if table is None:
        return None
    console = Console(width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_each_url_has_a_line() -> None:
    assert shown(GOOD, BAD) == [
        "model url state requests in all first byte why",
        "m https://a/v1 works 2 5 + 1 waiting 0.42 s",
        "m https://b/v1 open 0 - - nothing answers there",
    ]


def test_one_url_that_works_is_not_worth_a_word() -> None:
    assert shown() is None
    assert shown(GOOD) is None
    assert len(shown(BAD) or []) == 2
