"""`trio-gateway explain`: what would happen to a request, as a table."""

from __future__ import annotations

import os
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from trio_gateway.commands.key import KEY_VARIABLE
from trio_gateway.commands.loading import EXIT_FAILED, config_option, load_or_exit

if TYPE_CHECKING:
    from trio_gateway.models.explanation import Explanation


@click.command(short_help="Show what would happen to a request, and why.")
@config_option
@click.option("--key-file", type=click.File("r"), metavar="FILE",
              help="A file with an admin's API key for the running gateway. Default: "
              "$TRIO_GATEWAY_KEY.")  # fmt: skip
@click.option("--endpoint", metavar="NAME",
              help="The request's endpoint, such as messages or responses. Default: inferred from "
              "its fields.")  # fmt: skip
@click.argument("request", type=click.File("rb"))
def explain(
    path: Path | None, key_file: TextIO | None, endpoint: str | None, request: BinaryIO
) -> None:
    """Show what would happen to a REQUEST (a JSON file, or - for standard input), and why.

    Asks the running gateway, if there is one. Starts nothing.
    """
    config, _ = load_or_exit(path)
    # Imported here: only this command needs all of it.
    from trio_gateway.commands.explanations import ask_gateway, explain_offline
    from trio_gateway.commands.gateway_client import place_of_running, read_key
    from trio_gateway.commands.gateway_failures import GatewayFailed

    body = request.read().removeprefix(BOM_UTF8)
    place = place_of_running(config)
    given = key_file.read() if key_file is not None else os.environ.get(KEY_VARIABLE)
    try:
        found = ask_gateway(place, body, read_key(given) if given else None, endpoint)
        source = f"the gateway at {place}"
        if found is None:
            source = "no gateway is running; this is what a fresh one would do"
            found = explain_offline(config, body, endpoint)
    except GatewayFailed as error:
        click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)
    _print_rows(_rows_of(found))
    click.echo(f"({source})")


def _print_rows(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)


def _rows_of(found: Explanation) -> list[tuple[str, str]]:
    """The lines of the table: what, and what about it."""
    bounds = f"{found.bounds.lower} to {found.bounds.upper} tokens"
    counted = "unknown"
    if found.counted is not None:
        counted = f"{found.counted} tokens, by {found.counted_by}"
        counted += "" if found.is_exact else " (at most)"
    variants = ", ".join(f"{v.variant}{' (fits)' if v.holds else ''}" for v in found.variants)
    rows = [
        ("Model", f"{found.model}, {found.endpoint}"),
        *([("Choice of models", found.choice)] if found.choice is not None else ()),
        ("Prompt, by its bytes", bounds),
        ("Prompt, counted", counted),
    ]
    if found.need is not None:
        answer = "no maximum" if found.answer is None else f"{found.answer} tokens"
        if found.clamped_from is not None:
            answer += f", lowered from {found.clamped_from}"
        rows += [
            ("Answer", answer),
            ("Need", f"{found.need} tokens ({found.start_need} for an engine started for it)"),
        ]
    rows.append(("Variants", variants))
    if found.need is not None:
        rows += [("Choice", f"{found.variant}: {found.reason}"), *_engine_rows(found)]
    if found.back_off is not None:
        rows.append(("Back-off", found.back_off))
    if found.refused is not None:
        rows.append(("Refused", found.refused))
    return rows


def _engine_rows(found: Explanation) -> list[tuple[str, str]]:
    engine = f"{found.decision}, {found.engine_state or 'not running'}"
    if found.evicts:
        engine += f"; stops {', '.join(found.evicts)}"
    load_s, wait_s = found.expected_load_s, found.expected_wait_s
    wait = "unknown" if wait_s is None else f"{wait_s:g} s"
    if load_s is None:
        wait += ": its load has not been measured yet"
    else:
        wait += f", including {load_s:g} s of loading"
    return [("Engine", engine), ("Expected wait", wait), ("KV carry-over", found.kv)]
