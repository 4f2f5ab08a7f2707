"""`trio-gateway doctor`: what will not work, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_gateway.commands.asking import json_option, print_json
from trio_gateway.commands.loading import config_option
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.stop_signals import StopSignals

if TYPE_CHECKING:
    from trio_gateway.config.access_schema import UnixAddress
    from trio_gateway.config.schema import GatewayConfig, ListenAddress
    from trio_gateway.examining.finding import Finding
    from trio_gateway.examining.seen import Seen
    from trio_gateway.examining.trial import Trial

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command(short_help="Find what will not work, and say what to do about it.")
@config_option
@json_option
@click.option("--start", is_flag=True, help="Start each variant and try it, one after the other.")
@click.option("--anyway", is_flag=True, help="Start them although another gateway has engines.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.pass_obj
def doctor(
    signals: StopSignals,
    path: Path | None,
    models: tuple[str, ...],
    *,
    as_json: bool,
    start: bool,
    anyway: bool,
) -> None:
    """Find what will not work in a configuration and on this machine, and say what to do about it.

    With --start, engines of the MODELs (or of all) are started and asked: how long a load takes,
    how much memory, how fast, whether a restored cache helps, whether tools and images work. What
    is measured is remembered by the next gateway.

    Exits with 0 if there is nothing to do, with 1 for warnings, and with 2 for errors.
    """
    # Imported here: only this command needs all of it.
    from trio_gateway.examining.examination import findings
    from trio_gateway.examining.finding import error, exit_code, in_order

    if models and not start:
        raise click.UsageError("MODELs are for --start")
    trials: list[Trial] | None = None
    try:
        config, why = load_config(path)
    except ConfigError as wrong:
        found = [error(mistake) for mistake in wrong.mistakes]
        looked_at = "the configuration, which has to be corrected first"
    else:
        seen = _look(config)
        found = findings(config, seen)
        looked_at = f"{config.source} ({why})"
        if start:
            trials, more = _try(config, seen, models, signals, anyway=anyway)
            found = in_order([*found, *more])
    if as_json:
        print_json(_as_json(found, trials))
    else:
        if trials:
            from trio_gateway.commands.doctor_start import print_trials

            print_trials(trials)
            click.echo()
        _print_findings(found, looked_at)
    sys.exit(signals.exit_code if signals.received is not None else exit_code(found))


def _look(config: GatewayConfig) -> Seen:
    from trio_gateway.examining.probes import look

    return look(config, lambda address: _gateway_answers(config, address))


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


def _try(
    config: GatewayConfig,
    seen: Seen,
    models: Sequence[str],
    signals: StopSignals,
    *,
    anyway: bool,
) -> tuple[list[Trial], list[Finding]]:
    from trio_gateway.commands.doctor_start import chosen_variants, refuse_beside, try_all
    from trio_gateway.engine.ledger.file import own_ledger
    from trio_gateway.examining.trials import on_trials

    chosen = chosen_variants(config, models)
    if not anyway and (holders := seen.holders):
        refuse_beside(holders)
    trials = try_all(config, chosen, own_ledger(), signals)
    return trials, on_trials(config, trials)


def _as_json(found: list[Finding], trials: list[Trial] | None) -> dict[str, object]:
    import msgspec

    from trio_gateway.examining.finding import Severity

    lines = [{"severity": f.severity.value, "text": f.text, "cure": f.cure} for f in found]
    sums = {f"{s.value}s": sum(f.severity is s for f in found) for s in Severity}
    tried: dict[str, object] = {}
    if trials is not None:
        tried["variants"] = [
            {"model": t.key.model, "variant": t.key.variant, **_without_key(msgspec.to_builtins(t))}
            for t in trials
        ]
    return {"findings": lines, **sums, **tried}


def _without_key(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name != "key"}


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


def _sums(found: list[Finding]) -> str:
    from trio_gateway.examining.finding import Severity

    counts = {s.value: sum(f.severity is s for f in found) for s in Severity}
    said = [f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n]
    return ", ".join(said) or "Nothing to do"
