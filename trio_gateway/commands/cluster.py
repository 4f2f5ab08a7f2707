"""`trio-gateway cluster clean`: takes out what a killed gateway has left on Ray clusters."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from trio_gateway.commands.loading import EXIT_FAILED, config_option, load_or_exit
from trio_gateway.config.schema import EngineOptions, GatewayConfig


@click.group()
def cluster() -> None:
    """Engines on Ray clusters."""


@cluster.command()
@config_option
@click.option("--all", "of_all", is_flag=True, help="Those of all gateways, not only of this one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def clean(path: Path | None, of_all: bool, as_json: bool) -> None:
    """Take this gateway's applications out of the clusters that it names.

    A running gateway puts its own there again when they are asked for."""
    config, _ = load_or_exit(path)
    if not (options := _on_clusters(config)):
        click.echo(f"{config.source} names no cluster.", err=True)
        sys.exit(EXIT_FAILED)
    # Imported here: it is the only one of these commands that needs them.
    import trio

    from trio_gateway.engine.cluster.cleaning import Cleaned, clean_all

    found: list[Cleaned] = trio.run(clean_all, config.source, options, of_all)
    if as_json:
        rows = [{"address": c.address, "removed": c.names, "error": c.error} for c in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        for cleaned in found:
            if cleaned.error is not None:
                click.echo(cleaned.error, err=True)
                continue
            for name in cleaned.names:
                click.echo(f"{cleaned.address}: took out {name}")
            if not cleaned.names:
                click.echo(f"{cleaned.address}: nothing was left there")
    if any(cleaned.error is not None for cleaned in found):
        sys.exit(EXIT_FAILED)


def _on_clusters(config: GatewayConfig) -> list[EngineOptions]:
    variants = (variant for model in config.models for variant in model.variants)
    return [v.options for v in variants if v.options.cluster is not None]
