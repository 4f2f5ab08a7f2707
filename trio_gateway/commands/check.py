"""`trio-gateway check`: the models of a configuration as a table, notes, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_gateway.commands.loading import EXIT_WRONG_CONFIG, config_option, load_or_exit
from trio_gateway.config.missing import Missing, missing
from trio_gateway.config.readable_files import readable_secrets
from trio_gateway.config.schema import NEVER, GatewayConfig, VariantConfig
from trio_gateway.config.sizes import format_size
from trio_gateway.engine.loadable import Unloadable, cannot_load

if TYPE_CHECKING:
    from trio_gateway.engine.clients.kind import EngineKind

_WIDEST = 10_000  # columns: no limit, for a table's natural width


@click.command()
@config_option
def check(path: Path | None) -> None:
    """Check a configuration and show its models; starts no engine."""
    config, why = load_or_exit(path)
    _print_models(config)
    for note in config.notes:
        click.echo(f"note: {note}")
    for warning in readable_secrets(config):
        click.echo(f"warning: {warning}")
    lacks: list[Missing | Unloadable] = [*missing(config), *cannot_load(config)]
    for lack in lacks:
        click.echo(f"{config.source}: {lack.text}", err=True)
    if lacks:
        what = "is valid, but not all of it can run on this machine"
        click.echo(f"{config.source} {what} ({why}).", err=True)
        sys.exit(EXIT_WRONG_CONFIG)
    listen = (*config.server.listen, *config.server.listen_unix)
    addresses = ", ".join(str(address) for address in listen)
    click.echo(f"{config.source} is valid ({why}). It listens on {addresses}.")


def _print_models(config: GatewayConfig) -> None:
    # Imported here: `serve` has no use for rich, which takes 50 ms.
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from trio_gateway.engine.clients.registry import kind_of

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    limited = any(pool.is_limited for pool in config.pools.values())
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
                *(_describe_variant(variant, kind_of(model.engine)) if variant else ()),
                *((_describe_memory(variant),) if variant and limited else ()),
            )
    # Names are data: no markup, no emoji; and no table is cut, however wide.
    console = Console(markup=False, emoji=False, highlight=False)
    natural = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.width = max(console.width, natural)
    if config.models:
        console.print(table)
    for peer in config.peers:
        which = "all models" if peer.models is None else ", ".join(peer.models)
        console.print(f"{peer.name}: {which} of {' and '.join(peer.options.urls)}")
    for choice in config.written_choices:
        members = ", ".join(member.name for member in choice.members)
        console.print(f"choice {choice.name}: {members} ({choice.strategy.value})")


def _describe_variant(variant: VariantConfig, kind: EngineKind) -> tuple[str, str, str]:
    context = f"{variant.context:,}"
    named = variant.name != str(variant.context)
    return (
        f"{context} {variant.name}" if named else context,
        _describe_address(variant, kind),
        "never" if variant.timeouts.idle_s == NEVER else f"{variant.timeouts.idle_s:g} s",
    )


def _describe_address(variant: VariantConfig, kind: EngineKind) -> str:
    if (cluster := variant.options.cluster) is not None:
        return f"{cluster.address} ({cluster.replicas} of them)"
    if urls := variant.options.urls:
        return f"{urls[0]} and {len(urls) - 1} more" if len(urls) > 1 else urls[0]
    fixed = kind.fixed_address(variant.engine_args)
    address = f"{fixed[0]}:{fixed[1]}" if fixed else "a free port"
    return (variant.connect or address).removeprefix("http://")


def _describe_memory(variant: VariantConfig) -> str:
    if not variant.has_process:
        return "elsewhere"
    if (expected := variant.expected_memory_bytes) is None:
        return "unknown"
    return f"{'~' if variant.memory_bytes is None else ''}{format_size(expected)}"
