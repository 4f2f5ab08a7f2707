"""`trio-gateway doctor`: what will not work, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_gateway.commands.asking import json_option, print_json
from trio_gateway.commands.loading import config_option
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config

if TYPE_CHECKING:
    from trio_gateway.config.access_schema import UnixAddress
    from trio_gateway.config.schema import GatewayConfig, ListenAddress
    from trio_gateway.examining.finding import Finding


@click.command(short_help="Find what will not work, and say what to do about it.")
@config_option
@json_option
def doctor(path: Path | None, *, as_json: bool) -> None:
    """Find what will not work in a configuration and on this machine, and say what to do about it.

    Exits with 0 if there is nothing to do, with 1 for warnings, and with 2 for errors.
    """
    # Imported here: only this command needs all of it.
    from trio_gateway.examining.finding import error, exit_code

    try:
        config, why = load_config(path)
    except ConfigError as wrong:
        found = [error(mistake) for mistake in wrong.mistakes]
        looked_at = "the configuration, which has to be corrected first"
    else:
        found = _examine(config)
        looked_at = f"{config.source} ({why})"
    if as_json:
        print_json(_as_json(found))
    else:
        _print_findings(found, looked_at)
    sys.exit(exit_code(found))


def _examine(config: GatewayConfig) -> list[Finding]:
    from trio_gateway.examining.examination import findings
    from trio_gateway.examining.probes import look

    return findings(config, look(config, lambda address: _gateway_answers(config, address)))


def _gateway_answers(config: GatewayConfig, address: ListenAddress | UnixAddress) -> bool:
    """Whether a gateway answers there, with whatever."""
    import msgspec

    from trio_gateway.commands.gateway_client import GatewayClient, place_of
    from trio_gateway.config.access_schema import UnixAddress

    is_unix = isinstance(address, UnixAddress)
    server = msgspec.structs.replace(
        config.server,
        listen=() if is_unix else (address,),
        listen_unix=(address,) if is_unix else (),
    )
    return GatewayClient(place_of(server)).is_there()


def _as_json(found: list[Finding]) -> dict[str, object]:
    from trio_gateway.examining.finding import Severity

    return {
        "findings": [{"severity": f.severity.value, "text": f.text, "cure": f.cure} for f in found],
        **{f"{s.value}s": sum(f.severity is s for f in found) for s in Severity},
    }


def _print_findings(found: list[Finding], looked_at: str) -> None:
    """One line each; a terminal gets them wrapped."""
    from rich.table import Table
    from rich.text import Text

    from trio_gateway.commands.tables import console

    out = console()
    if not out.is_terminal:
        for finding in found:
            click.echo(f"{finding.severity.value}: {finding.line}")
    elif found:
        table = Table.grid(padding=(0, 2, 0, 0))
        for finding in found:
            word = finding.severity.value
            table.add_row(Text(word, _STYLES[word]), Text(finding.line, overflow="fold"))
        out.print(table)
    out.print(Text(f"{_sums(found)} in {looked_at}."), soft_wrap=not out.is_terminal)


_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def _sums(found: list[Finding]) -> str:
    from trio_gateway.examining.finding import Severity

    counts = {s.value: sum(f.severity is s for f in found) for s in Severity}
    said = [f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n]
    return ", ".join(said) or "Nothing to do"
