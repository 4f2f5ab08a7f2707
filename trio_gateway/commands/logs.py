"""`trio-gateway logs`: the last lines of the gateway or of engines, and those that come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
from click.shell_completion import CompletionItem

from trio_gateway.commands import words
from trio_gateway.commands.asking import ModelName, asked_gateway, asking_options, json_option
from trio_gateway.stop_signals import StopSignals

if TYPE_CHECKING:
    from trio_gateway.commands.gateway_client import GatewayClient, Query

GATEWAY = "gateway"
_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")  # all that an engine's line may do to a terminal


class LogName(ModelName):
    """The name of a model, or the gateway's own."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = super().shell_complete(ctx, param, incomplete)
        return [*found, CompletionItem(GATEWAY)] if GATEWAY.startswith(incomplete) else found


@click.command()
@asking_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, 2000), default=200, show_default=True,
              help="How many that were written before.")  # fmt: skip
@json_option
@click.argument("model", type=LogName(), nargs=-1)
@click.pass_obj
def logs(
    signals: StopSignals,
    path: Path | None,
    key_file: TextIO | None,
    model: Sequence[str],
    *,
    follow: bool,
    lines: int,
    as_json: bool,
) -> None:
    """Show what the gateway logged last, or the engines of each MODEL (also `MODEL:VARIANT`).

    Name `gateway` as well to have both.
    """
    query: Query = {
        "engine": [*model] or GATEWAY, "lines": lines, "follow": "1" if follow else None,
    }  # fmt: skip
    with asked_gateway(path, key_file) as gateway:
        import trio

        many = len(model) > 1 or bool(model and model[0] != GATEWAY)
        show = click.echo if as_json else partial(_show, with_source=many)
        trio.run(_print, gateway, query, show, signals)


async def _print(
    gateway: GatewayClient, query: Query, show: Callable[[str], None], signals: StopSignals
) -> None:
    from trio_gateway.commands.gateway_failures import ended
    from trio_gateway.commands.stopping import until_stopped

    async def print_them() -> None:
        async with gateway.lines("/gateway/logs", query) as lines:
            async for line in lines:
                if line:  # an empty one is a sign of life
                    show(line)
        if query["follow"] is not None:
            raise ended(gateway.place)  # only a gateway that stops ends this

    await until_stopped(signals, print_them)


def _show(text: str, *, with_source: bool) -> None:
    line = json.loads(text)
    style = _STYLES.get(line["level"])
    source = click.style(line["source"], dim=True) + " " if with_source else ""
    # What the gateway says of an engine has that one's last lines with it.
    said = [_coloured(one, style) for one in line["text"].split("\n")]
    click.echo(f"{words.clock(line['at_s'])} {source}" + "\n    ".join(said))


def _coloured(text: str, style: str | None) -> str:
    parts = _COLOUR.split(text)
    said = "".join(p if n % 2 else _printable(p) for n, p in enumerate(parts))
    said += "\x1b[0m" if len(parts) > 1 else ""
    return click.style(said, fg=style) if style else said


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)
