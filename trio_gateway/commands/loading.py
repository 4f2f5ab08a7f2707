"""What every command that reads a configuration shares: the option for it, and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig

EXIT_FAILED = 1
EXIT_WRONG_CONFIG = 2

config_option = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The configuration. Default: $TRIO_GATEWAY_CONFIG, then ./gateway.lua, then a small "
    "model on the embedded engine.",
)  # fmt: skip


def load_or_exit(path: Path | None) -> tuple[GatewayConfig, str]:
    """The checked configuration, and why it is this one; prints its errors and exits."""
    try:
        return load_config(path)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(EXIT_WRONG_CONFIG)
