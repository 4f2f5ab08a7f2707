"""The command line: `trio-gateway serve`, `check`, `explain` and `key`."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click
import msgspec
import trio

from trio_gateway import __version__
from trio_gateway.commands.key import KEY_VARIABLE, key
from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.config_loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig, ListenAddress, VariantConfig
from trio_gateway.config.sizes import format_size
from trio_gateway.log import configure_logging

if TYPE_CHECKING:
    from trio_gateway.engine.clients.client import EngineClient

EXIT_FAILED = 1
EXIT_WRONG_CONFIG = 2

_WIDEST = 10_000  # columns: no limit, for a table's natural width

_CONFIG_OPTION = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The configuration. Default: $TRIO_GATEWAY_CONFIG, else ./gateway.lua, else a small "
    "model on the embedded engine.",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """An OpenAI-compatible service over the llama.cpp engines of this machine."""


main.add_command(key)


@main.command()
@_CONFIG_OPTION
@click.option("-v", "--verbose", is_flag=True, help="Log each request, and what the engines print.")
def serve(path: Path | None, verbose: bool) -> None:
    """Serve the models until Ctrl-C (or SIGTERM)."""
    config, why = _load_or_exit(path)
    configure_logging(verbose=verbose)
    click.echo(f"trio-gateway {__version__}, configuration {config.source} ({why})")
    for note in config.notes:
        logging.getLogger(__name__).info("%s: %s", config.source, note)

    # Imported here: `check` and `--help` need no web framework, which takes 0.3 s to load.
    from trio_gateway.app import create_app
    from trio_gateway.server.gateway_server import GatewayServer, ListenError

    # What is loaded by now stays: without it each full collection is shorter. Measured beside the
    # same without: 5 % of the CPU of a small request.
    gc.collect()
    gc.freeze()

    async def run() -> None:
        server = GatewayServer(create_app(config))
        async with trio.open_nursery() as nursery:
            addresses: list[ListenAddress | UnixAddress] = await nursery.start(server.run)
            _say_ready(config, addresses)

    mistakes: list[BaseException] = []
    try:
        trio.run(run)
    except* ListenError as failed:
        mistakes = _leaves(failed)
    for mistake in mistakes:
        click.echo(f"trio-gateway: {mistake}", err=True)
    if mistakes:
        # Not inside the `except*`: there Python 3.11.2 makes a group of the exit (3.11.7 does not).
        sys.exit(EXIT_FAILED)


@main.command()
@_CONFIG_OPTION
def check(path: Path | None) -> None:
    """Check a configuration and show its models; starts nothing."""
    config, why = _load_or_exit(path)
    _print_models(config)
    for note in (*config.notes, *_missing_binaries(config)):
        click.echo(f"note: {note}")
    listen = (*config.server.listen, *config.server.listen_unix)
    addresses = ", ".join(str(address) for address in listen)
    click.echo(f"{config.source} is right ({why}). It listens on {addresses}.")


@main.command()
@_CONFIG_OPTION
@click.option("--key-file", type=click.File("r"), metavar="FILE",
              help="A file with the API key (an admin's) for the running gateway. Default: "
              "$TRIO_GATEWAY_KEY.")  # fmt: skip
@click.option("--endpoint", metavar="NAME",
              help="Which endpoint it is for, such as messages or responses. Default: by its "
              "fields.")  # fmt: skip
@click.argument("request", type=click.File("rb"))
def explain(
    path: Path | None, key_file: TextIO | None, endpoint: str | None, request: BinaryIO
) -> None:
    """Show what would become of a REQUEST (a JSON file, or - for standard input), and why.

    The running gateway is asked, if there is one. Nothing is started.
    """
    config, _ = _load_or_exit(path)
    # Imported here: only this command needs all of it.
    from trio_gateway.commands.explain import (
        ExplainFailed,
        ask_gateway,
        explain_offline,
        place_of,
        read_key,
        rows_of,
    )

    body = request.read()
    place = place_of(config.server)
    given = key_file.read() if key_file is not None else os.environ.get(KEY_VARIABLE)
    try:
        found = ask_gateway(place, body, read_key(given) if given else None, endpoint)
        source = f"the gateway at {place}"
        if found is None:
            source = "no gateway runs; this is what a fresh one would do"
            found = explain_offline(config, body, endpoint)
    except ExplainFailed as error:
        click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)
    _print_rows(rows_of(found))
    click.echo(f"({source})")


def _print_rows(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)


def _missing_binaries(config: GatewayConfig) -> list[str]:
    """Not a mistake, as the file may be meant for another machine; but worth a word."""
    variants = [variant for model in config.models for variant in model.variants]
    binaries = {variant.binary for variant in variants if variant.has_process}
    binaries |= {variant.stop_command[0] for variant in variants if variant.stop_command}
    binaries |= {model.tokenization.binary for model in config.models if model.tokenization}
    return [f"{b} does not exist here" for b in sorted(binaries) if shutil.which(b) is None]


def _load_or_exit(path: Path | None) -> tuple[GatewayConfig, str]:
    try:
        return load_config(path)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(EXIT_WRONG_CONFIG)


def _print_models(config: GatewayConfig) -> None:
    # Imported here: `serve` has no use for rich, which takes 50 ms.
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from trio_gateway.engine.clients.registry import client_type_of

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    limited = any(pool.memory_bytes is not None for pool in config.pools.values())
    headings = ("Model", "Pool", "Variant", "Engine at", "Idle stop")
    for heading in (*headings, "Memory") if limited else headings:
        table.add_column(heading, no_wrap=True)
    for model in config.models:
        rows = max(len(model.variants), 1 + len(model.aliases))
        names = [model.name, *(f"  = {alias}" for alias in model.aliases)]
        for row in range(rows):
            variant = model.variants[row] if row < len(model.variants) else None
            table.add_row(
                names[row] if row < len(names) else "",
                model.pool if row == 0 else "",
                *(_describe_variant(variant, client_type_of(model.engine)) if variant else ()),
                *((_describe_memory(variant),) if variant and limited else ()),
            )
    # Names are data: no markup, no emoji. A table wider than the terminal is not cut, either.
    console = Console(markup=False, emoji=False, highlight=False)
    natural = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.width = max(console.width, natural)
    console.print(table)


def _describe_variant(
    variant: VariantConfig, client_type: type[EngineClient]
) -> tuple[str, str, str]:
    context = f"{variant.context:,}"
    named = variant.name != str(variant.context)
    return (
        f"{context} {variant.name}" if named else context,
        _describe_address(variant, client_type),
        f"{variant.timeouts.idle_s:g} s",
    )


def _describe_address(variant: VariantConfig, client_type: type[EngineClient]) -> str:
    if urls := variant.options.urls:
        return f"{urls[0]} and {len(urls) - 1} more" if len(urls) > 1 else urls[0]
    fixed = client_type.fixed_address(variant.args)
    address = f"{fixed[0]}:{fixed[1]}" if fixed else "a free port"
    return (variant.connect or address).removeprefix("http://")


def _describe_memory(variant: VariantConfig) -> str:
    if not variant.has_process:
        return "elsewhere"
    if (expected := variant.expected_memory_bytes) is None:
        return "unknown"
    return f"{'~' if variant.memory_bytes is None else ''}{format_size(expected)}"


def _say_ready(config: GatewayConfig, addresses: list[ListenAddress | UnixAddress]) -> None:
    urls = [_url(config, address) for address in addresses]
    for url in urls:
        click.echo(f"listening on {url}")
    first = addresses[0]
    if isinstance(first, UnixAddress):
        base, through = "http://localhost/v1", f"--unix-socket {shlex.quote(str(first.path))} "
    else:
        base, through = f"{_url(config, first.from_here)}/v1", ""
    if config.server.access.api_keys:
        through += f'-H "Authorization: Bearer ${KEY_VARIABLE}" '
    names = [m.name for m in config.models if not m.hidden]
    request = {
        "model": names[0] if names else config.models[0].name,
        "stream": True,
        "messages": [{"role": "user", "content": "Name the capital city of France."}],
    }
    body = msgspec.json.encode(request).decode().replace("'", "'\\''")
    click.echo(f"\nReady. Base URL for clients: {base}")
    click.echo(f"Models: {', '.join(names)}")
    key_hint = f", with an API key in {KEY_VARIABLE}" if config.server.access.api_keys else ""
    click.echo(f"Try it{key_hint}:")
    content = "-H 'Content-Type: application/json'"
    click.echo(f"  curl -N {through}{base}/chat/completions {content} -d '{body}'\n")


def _url(config: GatewayConfig, address: ListenAddress | UnixAddress) -> str:
    if isinstance(address, UnixAddress):
        return str(address)
    return address.url_with("http" if config.server.tls is None else "https")


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
