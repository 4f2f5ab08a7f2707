"""`trio-gateway choose`: which models a choice means, and one of them by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import click

from trio_gateway.commands.asking import asked_gateway, asking_options, json_option, print_json


@click.command()
@asking_options
@click.option("--off", is_flag=True, help="Let its strategy choose again.")
@json_option
@click.argument("choice", required=False)
@click.argument("model", required=False)
def choose(
    path: Path | None,
    key_file: TextIO | None,
    choice: str | None,
    model: str | None,
    *,
    off: bool,
    as_json: bool,
) -> None:
    """Have requests for CHOICE answered by MODEL, until the configuration is reloaded.

    Without MODEL it shows which one a request would get now; without CHOICE, of all choices.
    """
    if off and (choice is None or model is not None):
        raise click.UsageError("--off goes with the name of a choice, and with no model")
    with asked_gateway(path, key_file) as gateway:
        if choice is not None and (off or model is not None):
            import msgspec

            from trio_gateway.commands.gateway_client import in_path

            body = msgspec.json.encode({"use": model})
            rows = [gateway.post(f"/gateway/choices/{in_path(choice)}", body)]
        else:
            rows = gateway.get("/gateway/choices")["choices"]
            known = [row["name"] for row in rows]
            if choice is not None and choice not in known:
                listed = f"there are: {', '.join(known)}" if known else "there are none"
                raise click.ClickException(f'there is no choice "{choice}"; {listed}')
            rows = [row for row in rows if choice in (None, row["name"])]
    if as_json:
        print_json(rows if choice is None else rows[0])
    elif not rows:
        click.echo("The configuration has no choices.")
    else:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from trio_gateway.commands.tables import choices_table, console

    console().print(choices_table(rows))
