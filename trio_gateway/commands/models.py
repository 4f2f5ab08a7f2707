"""`trio-gateway load`, `unload` and `pin`: what is in memory, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from trio_gateway.commands import words
from trio_gateway.commands.asking import (
    asked_gateway,
    asking_options,
    json_option,
    model_argument,
    print_json,
)

_DOING = {"load": "Loading", "unload": "Unloading", "pin": "Pinning"}


@click.command()
@asking_options
@json_option
@model_argument
def load(path: Path | None, key_file: TextIO | None, model: str, *, as_json: bool) -> None:
    """Start an engine of MODEL, and wait until it is ready."""
    found = _ask(path, key_file, model, "load")
    if as_json:
        print_json(found)
        return
    name = f"{found['model']}:{found['variant']}"
    if found["decision"] == "reused":
        click.echo(f"{name} was loaded already.")
    else:
        click.echo(f"{name} is loaded, in {words.seconds(found['load_s'])}.")


@click.command()
@asking_options
@click.option("--force", is_flag=True, help="End its running requests as well.")
@json_option
@model_argument
def unload(
    path: Path | None, key_file: TextIO | None, model: str, *, force: bool, as_json: bool
) -> None:
    """Stop the engines of MODEL, once their requests are done."""
    found = _ask(path, key_file, model, "unload", {"force": "true" if force else None})
    if as_json:
        print_json(found)
        return
    stopped = found["engines_stopped"]
    if stopped:
        click.echo(f"{found['model']} is unloaded.")
    else:
        click.echo(f"{found['model']} was not loaded.")


@click.command()
@asking_options
@click.option("--off", is_flag=True, help="Let it make way for others again.")
@json_option
@model_argument
def pin(
    path: Path | None, key_file: TextIO | None, model: str, *, off: bool, as_json: bool
) -> None:
    """Keep MODEL loaded: its engines make way for others last."""
    found = _ask(path, key_file, model, "pin", {"pinned": "false" if off else "true"})
    if as_json:
        print_json(found)
    elif found["pinned"]:
        click.echo(f"{found['model']} is pinned, until the gateway ends or `pin --off`.")
    else:
        click.echo(f"{found['model']} is not pinned.")


def _ask(
    path: Path | None,
    key_file: TextIO | None,
    model: str,
    what: str,
    query: Mapping[str, str | None] = {},
) -> dict[str, Any]:
    """However long it takes: a load does."""
    with asked_gateway(path, key_file) as gateway:
        from rich.console import Console

        from trio_gateway.commands.gateway_client import in_path

        waiting = Console(stderr=True, markup=False).status(f"{_DOING[what]} {model} …")
        with waiting:  # nothing where nobody looks
            found: dict[str, Any] = gateway.post(
                f"/gateway/models/{in_path(model)}/{what}", query=query, answer_timeout_s=None
            )
    return found
