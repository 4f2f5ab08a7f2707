"""`trio-gateway reload`: has the running gateway read its configuration anew."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from trio_gateway.commands.asking import asked_gateway, asking_options, json_option, print_json


@click.command()
@asking_options
@json_option
def reload(path: Path | None, key_file: TextIO | None, *, as_json: bool) -> None:
    """Have the running gateway read its configuration anew.

    Streams and engines of what is as before go on. A file with mistakes changes nothing.
    """
    with asked_gateway(path, key_file) as gateway:
        found = gateway.post("/gateway/reload", answer_timeout_s=None)
    if as_json:
        print_json(found)
        return
    for note in found["notes"]:
        click.echo(f"note: {note}")
    for change in found["changes"]:
        click.echo(change)
    if not found["changes"]:
        click.echo("Nothing has changed.")
