"""`trio-gateway doctor --start`: which variants, what is shown meanwhile, and the table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trio_gateway.commands import words
from trio_gateway.commands.stopping import until_stopped
from trio_gateway.commands.tables import console
from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.examining.trial import Trial, Tried, try_variant
from trio_gateway.stop_signals import StopSignals

_WORKS = {True: "yes", False: "no", None: words.NOTHING}
_LINES_MAX = 12  # of an engine that did not start

Chosen = list[tuple[ModelConfig, VariantConfig]]


def chosen_variants(config: GatewayConfig, names: Sequence[str]) -> Chosen:
    """Those of the models that are named, or all. A name is a model's, an alias, a choice,
    `MODEL:VARIANT` or `MODEL@CONTEXT`. Raises click.UsageError: there is none of a name."""
    every = [(model, variant) for model in config.models for variant in model.variants]
    if not names:
        return every
    found: Chosen = []
    choices = {choice.name: {m.model for m in choice.members} for choice in config.choices}
    for name in names:
        of_name = [
            (model, variant)
            for model, variant in every
            if name in _names_of(model, variant) or model.name in choices.get(name, ())
        ]
        if not of_name:
            known = ", ".join(model.name for model in config.models)
            raise click.UsageError(f"there is no model {name}; there are {known}")
        found += [one for one in of_name if one not in found]
    return found


def _names_of(model: ModelConfig, variant: VariantConfig) -> set[str]:
    names = {model.name, *model.aliases}
    ends = (f":{variant.name}", f"@{variant.name}", f"@{variant.context}")
    return names | {f"{name}{end}" for name in names for end in ends}


def try_all(
    config: GatewayConfig, chosen: Chosen, ledger: LedgerFile | None, signals: StopSignals
) -> list[Trial]:
    """One after the other, until a signal comes; those that were tried by then."""
    trials: list[Trial] = []
    logging.getLogger("trio_gateway").addHandler(logging.NullHandler())  # the table says it all

    async def work() -> None:
        with _shown(len(chosen)) as (tell, done):
            for model, variant in chosen:
                name = f"{model.name}:{variant.name}"
                tell_step = partial(_tell_of, tell, name)
                trials.append(await try_variant(config, model, variant, ledger, tell_step))
                done(trials[-1])

    trio.run(until_stopped, signals, work)
    return trials


def _tell_of(tell: Callable[[str], None], name: str, step: str) -> None:
    tell(f"{name}: {step}")


@contextmanager
def _shown(count: int) -> Iterator[tuple[Callable[[str], None], Callable[[Trial], None]]]:
    """What is done now, and what is done: on stderr, as a bar where that is a terminal."""
    err = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not err.is_terminal:
        yield lambda _: None, lambda trial: click.echo(_said(trial), err=True)
        return
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=count)
        yield (
            lambda step: progress.update(task, description=step),
            lambda _: progress.advance(task),
        )


def _said(trial: Trial) -> str:
    if trial.failure:
        return f"{trial.key}: it did not start"
    if trial.asked.works is False:
        return f"{trial.key}: it did not answer"
    return f"{trial.key}: tried"


def print_trials(trials: Sequence[Trial]) -> None:
    """The table, and the last lines of the engines that did not start."""
    out = console()
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("Variant", overflow="fold")
    for heading in ("Context", "Slots", "Load", "Memory", "Prompt", "Answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("Cache", "Tools", "Images"):
        table.add_column(heading, no_wrap=True)
    for trial in trials:
        table.add_row(*_cells(trial))
    out.print(table)
    for trial in trials:
        if trial.failure and trial.output:
            out.print(Text(f"\nThe last lines of {trial.key}:"))
            for line in trial.output[-_LINES_MAX:]:
                out.print(Text(f"  {line}"), soft_wrap=True)


def _cells(trial: Trial) -> tuple[Text, ...]:
    name = Text(str(trial.key), "red" if trial.failure or trial.asked.works is False else "")
    return (
        name,
        Text(words.count(trial.context)),
        Text(words.count(trial.slots)),
        Text("failed" if trial.failure else words.seconds(trial.load_s)),
        Text(words.size(trial.memory_bytes)),
        Text(_per_second(trial.prompt_speed)),
        Text(_per_second(trial.speed)),
        *map(_works, (trial.restore, trial.tools, trial.images)),
    )


def _works(tried: Tried) -> Text:
    return Text(_WORKS[tried.works], {True: "green", False: "yellow", None: "dim"}[tried.works])


def _per_second(speed: float | None) -> str:
    return words.speed(speed).replace(" t/s", "/s")


def refuse_beside(holders: Sequence[str]) -> None:
    """Ends the command: others hold the memory that the engines are to get."""
    click.echo(
        f"trio-gateway: {' and '.join(holders)}: what is started beside would be measured wrongly, "
        "or not fit; stop that, unload its models, or write --anyway",
        err=True,
    )
    sys.exit(2)
