"""What commands share that ask the running gateway: their options, and how they fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.shell_completion import CompletionItem

from trio_gateway.commands.key import KEY_VARIABLE
from trio_gateway.commands.loading import EXIT_FAILED, config_option, load_or_exit
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config

if TYPE_CHECKING:
    from trio_gateway.commands.gateway_client import GatewayClient

    _TextType = click.ParamType[str]
else:
    _TextType = click.ParamType  # no generic before click 8.4

Command = Callable[..., None]

_key_option = click.option(
    "--key-file", type=click.File("r"), metavar="FILE",
    help="A file with an admin's API key for the running gateway. Default: $TRIO_GATEWAY_KEY.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def asking_options(command: Command) -> Command:
    """`-c`, which says where the gateway is, and `--key-file`."""
    return config_option(_key_option(command))


@contextmanager
def asked_gateway(path: Path | None, key_file: TextIO | None) -> Iterator[GatewayClient]:
    """A client of the configuration's gateway; what goes wrong with it ends the command."""
    config, _ = load_or_exit(path)
    # Imported here, and not with the command: httpx takes a quarter of a second.
    from trio_gateway.commands.gateway_client import GatewayClient, place_of_running, read_key
    from trio_gateway.commands.gateway_failures import GatewayFailed

    given = key_file.read() if key_file is not None else os.environ.get(KEY_VARIABLE)
    try:
        yield GatewayClient(place_of_running(config), read_key(given) if given else None)
    except GatewayFailed as error:
        click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


class ModelName(_TextType):
    """The name of a model of the configuration, which the shell completes."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            config, _ = load_config(ctx.params.get("path"))
        except ConfigError:
            return []
        names = [name for model in config.models for name in (model.name, *model.aliases)]
        names += [choice.name for choice in config.choices]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


model_argument = click.argument("model", type=ModelName())
