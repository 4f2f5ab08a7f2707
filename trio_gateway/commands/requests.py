"""`trio-gateway requests`: the last requests, and what happened to them."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from trio_gateway.commands.asking import (
    ModelName,
    asked_gateway,
    asking_options,
    json_option,
    print_json,
)


@click.command()
@asking_options
@click.option("--model", type=ModelName(), metavar="NAME", help="Only those for this model.")
@click.option("--client", metavar="NAME", help="Only those of this client.")
@click.option("--status", metavar="STATUS", help="Only those with this status or outcome.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="How many.")  # fmt: skip
@json_option
def requests(
    path: Path | None,
    key_file: TextIO | None,
    model: str | None,
    client: str | None,
    status: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """Show the last requests, the newest last."""
    with asked_gateway(path, key_file) as gateway:
        found = gateway.get(
            "/gateway/requests",
            {"model": model, "client": client, "status": status, "limit": limit},
        )
    if as_json:
        print_json(found)
        return
    from trio_gateway.commands.tables import console, requests_table

    if partial := found.get("partial"):
        click.echo(
            f"There may be more: the history's file cannot be used now ({partial}).", err=True
        )
    if not found["requests"]:
        click.echo("The gateway remembers no such requests.")
        return
    out = console()
    out.print(requests_table(found["requests"][::-1], out.width))
