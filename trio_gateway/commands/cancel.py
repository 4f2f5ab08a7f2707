"""`trio-gateway cancel`: ends a request that waits or runs."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from trio_gateway.commands.asking import asked_gateway, asking_options, json_option, print_json


@click.command()
@asking_options
@json_option
@click.argument("request_id", metavar="ID")
def cancel(path: Path | None, key_file: TextIO | None, request_id: str, *, as_json: bool) -> None:
    """End the request ID, which waits or runs; its client gets an error that says so.

    `trio-gateway top` and the header X-Gateway-Request-Id have ids.
    """
    with asked_gateway(path, key_file) as gateway:
        from trio_gateway.commands.gateway_client import in_path

        found = gateway.post(f"/gateway/requests/{in_path(request_id)}/cancel")
    if as_json:
        print_json(found)
    else:
        click.echo(f"The request {request_id} is cancelled.")
