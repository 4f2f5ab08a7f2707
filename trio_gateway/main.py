"""The command line: `trio-gateway serve`, `trio-gateway check`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import msgspec
import trio

from trio_gateway import __version__
from trio_gateway.config.config_loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig, ListenAddress
from trio_gateway.log import configure_logging

EXIT_FAILED = 1
EXIT_WRONG_CONFIG = 2

_CONFIG_OPTION = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The configuration. Default: $TRIO_GATEWAY_CONFIG, else ./gateway.lua, else a small "
    "model on the embedded engine.",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """An OpenAI-compatible service over the llama.cpp engines of this machine."""


@main.command()
@_CONFIG_OPTION
@click.option("-v", "--verbose", is_flag=True, help="Log what the engines print, too.")
def serve(path: Path | None, verbose: bool) -> None:
    """Serve the models until Ctrl-C (or SIGTERM)."""
    configure_logging(verbose=verbose)
    config, why = _load_or_exit(path)
    click.echo(f"trio-gateway {__version__}, configuration {config.source} ({why})")
    for note in config.notes:
        logging.getLogger(__name__).info("%s: %s", config.source, note)

    # Imported here: `check` and `--help` need no web framework, which takes 0.3 s to load.
    from trio_gateway.app import create_app
    from trio_gateway.server.gateway_server import GatewayServer, ListenError

    async def run() -> None:
        server = GatewayServer(create_app(config))
        async with trio.open_nursery() as nursery:
            addresses: list[ListenAddress] = await nursery.start(server.run)
            _say_ready(config, addresses)

    try:
        trio.run(run)
    except* ListenError as failed:
        for error in _leaves(failed):
            click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)


@main.command()
@_CONFIG_OPTION
def check(path: Path | None) -> None:
    """Check a configuration and show its models; starts nothing."""
    config, why = _load_or_exit(path)
    # Imported here: `serve` has no use for it, and it takes 50 ms.
    from rich.console import Console
    from rich.table import Table

    table = Table("Model", "Engine", "Pool", "Variant", "Context", "Listens on", "Idle stop")
    for model in config.models:
        for variant in model.variants:
            first = variant is model.variants[0]
            names = "\n".join([model.name, *(f"  = {alias}" for alias in model.aliases)])
            table.add_row(
                names if first else "",
                model.engine.value if first else "",
                model.pool if first else "",
                variant.name,
                f"{variant.context:,}",
                variant.connect or "a free port",
                f"{variant.timeouts.idle_s:g} s",
                end_section=variant is model.variants[-1],
            )
    Console().print(table)
    for note in config.notes:
        click.echo(f"note: {note}")
    addresses = ", ".join(str(address) for address in config.server.listen)
    click.echo(f"{config.source} is right ({why}). It listens on {addresses}.")


def _load_or_exit(path: Path | None) -> tuple[GatewayConfig, str]:
    try:
        return load_config(path)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(EXIT_WRONG_CONFIG)


def _say_ready(config: GatewayConfig, addresses: list[ListenAddress]) -> None:
    for address in addresses:
        click.echo(f"listening on {address.url}")
    base = f"{_reachable(addresses[0]).url}/v1"
    names = [m.name for m in config.models if not m.hidden]
    request = {
        "model": names[0] if names else config.models[0].name,
        "stream": True,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    body = msgspec.json.encode(request).decode().replace("'", "'\\''")
    click.echo(f"\nReady. Base URL for clients: {base}")
    click.echo(f"Models: {', '.join(names)}")
    click.echo("Try it:")
    click.echo(
        f"  curl -N {base}/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
    )


def _reachable(address: ListenAddress) -> ListenAddress:
    """An address that a client on this machine can use for one that means all of them."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return ListenAddress(local, address.port)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
