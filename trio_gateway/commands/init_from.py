"""`trio-gateway init --from`: the configuration of another program, as one of ours."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_gateway.commands.loading import EXIT_WRONG_CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_gateway.converting.description import Remark


def converted(source: Path) -> str:
    """The text of our configuration. Says on stderr what is not as it was; what cannot be read ends
    the command."""
    # Imported here: the other commands need none of this.
    from trio_gateway.converting.convert import described, trained_context, unset_variables
    from trio_gateway.converting.description import NotConvertible
    from trio_gateway.converting.written import written

    text = _read(source)
    try:
        description = described(text, source.name, os.environ, trained_context)
        lua = written(description, source.name, time.strftime("%Y-%m-%d"))
    except NotConvertible as error:
        click.echo(f"{source}: {error}", err=True)
        sys.exit(EXIT_WRONG_CONFIG)
    except ValueError as error:  # a text or a number that Lua cannot have
        click.echo(f"{source}: {error}", err=True)
        sys.exit(EXIT_WRONG_CONFIG)
    count = len(description.models)
    click.echo(
        f"{source} is {description.program}'s, with {count} model{'' if count == 1 else 's'}.",
        err=True,
    )
    _show(description.remarks)
    for name in unset_variables(lua, text, os.environ):
        click.echo(
            f"warning: the environment variable {name} is not set; the file needs it, here and "
            "where the gateway runs",
            err=True,
        )
    return lua


def _read(source: Path) -> str:
    from trio_gateway.converting.convert import MOST_BYTES

    try:
        with sys.stdin.buffer if str(source) == "-" else source.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        click.echo(f"{source}: {error.strerror}", err=True)
        sys.exit(EXIT_WRONG_CONFIG)
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES // 1024**2} MiB")
        return data.decode()
    except UnicodeDecodeError:
        click.echo(f"{source}: not UTF-8 text", err=True)
    except ValueError as error:
        click.echo(f"{source}: {error}", err=True)
    sys.exit(EXIT_WRONG_CONFIG)


def _show(remarks: Sequence[Remark]) -> None:
    """On stderr, so that `--print` has stdout for itself."""
    if not remarks:
        return
    from rich.table import Table

    from trio_gateway.commands.tables import console as console_of

    console = console_of(stderr=True)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(ratio=1)
    for remark in remarks:
        table.add_row(remark.where, remark.what)
    console.print("\nWhat is not as it was (also at the end of the file):")
    console.print(table)
    console.print()
