"""`trio-gateway init`: finds models and an engine, and writes a configuration for them."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_gateway.commands.loading import EXIT_FAILED, EXIT_WRONG_CONFIG
from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.locate import LOCAL_NAME, VARIABLE

if TYPE_CHECKING:
    from trio_gateway.finding.engines import Engines
    from trio_gateway.finding.search import Found

_NO_ENGINE = """\
No llama-server was found, so nothing can be started yet. Install one of
  brew install llama.cpp                       (macOS, Linux)
  pip install xllamacpp                        (the embedded engine, in this Python)
  https://github.com/ggml-org/llama.cpp        (releases, and how to build it)
and run this again, or write its path into the file."""


@click.command()
@click.argument(
    "folders", nargs=-1, type=click.Path(path_type=Path, readable=False), metavar="[FOLDER]..."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(LOCAL_NAME), show_default=True,
    metavar="FILE", help="The file to write.",
)  # fmt: skip
@click.option("--print", "is_printed", is_flag=True, help="Print the configuration; write nothing.")
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Ask nothing.")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE",
    help="Convert llama-swap's YAML or an INI file of llama.cpp's router; look for nothing.",
)  # fmt: skip
def init(
    folders: tuple[Path, ...],
    output: Path,
    source: Path | None,
    *,
    is_printed: bool,
    is_sure: bool,
) -> None:
    """Write a configuration for the models on this machine.

    Looks for GGUF files in the folders; without any, in the caches of Hugging Face, llama.cpp, LM
    Studio, Ollama and Jan. A file that exists is never overwritten.
    """
    if source is not None and folders:
        raise click.UsageError("--from converts a file, and looks into no folder.")
    if not is_printed:
        _refuse_existing(output)
    if source is not None:
        _convert(source, output, is_printed=is_printed, is_sure=is_sure)
        return
    found, engines = _search(folders)
    _show(found, engines)
    if not found.plan.models:
        click.echo("No model was found that can be served; nothing was written.", err=True)
        sys.exit(EXIT_FAILED)
    text = _text(found, engines)
    if is_printed:
        click.echo(text, nl=False)
    else:
        asks = not is_sure and sys.stdin.isatty()
        if asks and not click.confirm(f"Write {output}?", default=True, err=True):
            sys.exit(EXIT_FAILED)
        write_new(output, text)
        _say_next(output, len(found.plan.models))
    if engines.engine is None:
        click.echo(f"\n{_NO_ENGINE}", err=True)
        sys.exit(EXIT_FAILED)


def _convert(source: Path, output: Path, *, is_printed: bool, is_sure: bool) -> None:
    from trio_gateway.commands.init_from import converted

    text = converted(source)
    if is_printed:
        click.echo(text, nl=False)
        return
    asks = not is_sure and sys.stdin.isatty()
    if asks and not click.confirm(f"Write {output}?", default=True, err=True):
        sys.exit(EXIT_FAILED)
    write_new(output, text, is_private=True)  # keys may be in it
    _say_next(output)


def write_new(path: Path, text: str, *, is_private: bool = False) -> None:
    """Write a configuration, as a whole or not at all, and only if it is valid and nothing has that
    name. Says what is wrong, and exits. `is_private`: nobody else may read it."""
    folder = path.parent
    try:
        fd, name = tempfile.mkstemp(prefix=".", suffix=f".{path.name}", dir=folder)
    except OSError as error:
        click.echo(f"{folder}: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)
    draft = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            ConfigLoader(draft).load()
        except ConfigError as error:
            for mistake in error.mistakes:
                click.echo(mistake.replace(str(draft), str(path)), err=True)
            click.echo(f"{path} was not written, as it would not be valid.", err=True)
            sys.exit(EXIT_WRONG_CONFIG)
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o600 if is_private else 0o666 & ~mask)
        _name(draft, path)
    except FileExistsError:
        _refuse_existing(path)
    except OSError as error:
        click.echo(f"{path}: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, path: Path) -> None:
    """Raises FileExistsError: something has that name."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        mode = draft.stat().st_mode & 0o777
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(draft.read_bytes())


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        click.echo(
            f"{path} exists, and is not overwritten. Name another file with -o, or see what "
            "would be written with --print.",
            err=True,
        )
        sys.exit(EXIT_FAILED)


def _search(folders: Sequence[Path]) -> tuple[Found, Engines]:
    # Imported here: the other commands need none of this.
    from trio_gateway.finding.engines import find_engine
    from trio_gateway.finding.places import given_place, is_there, usual_places
    from trio_gateway.finding.search import search
    from trio_gateway.hardware.machine import this_machine

    home = Path(os.path.expanduser("~"))  # never fails, as in a container without users
    for folder in folders:
        if not os.path.lexists(folder):
            click.echo(f"{folder}: no such folder", err=True)
            sys.exit(EXIT_WRONG_CONFIG)
    if folders:
        places = [given_place(folder) for folder in folders]
    else:
        usual = usual_places(os.environ, home, sys.platform)
        places = [place for place in usual if is_there(place)]
        names = dict.fromkeys(place.owner for place in places)
        what = ", ".join(names) if names else "no folder of a program that keeps models"
        click.echo(f"Looking in: {what}", err=True)
    engines = find_engine(os.environ, home)
    return search(places, engines, this_machine().read()), engines


def _text(found: Found, engines: Engines) -> str:
    from trio_gateway.finding.written import written

    day = time.strftime("%Y-%m-%d")
    return written(found.plan, engines.engine, found.room, found.left, day)


def _show(found: Found, engines: Engines) -> None:
    """On stderr, so that `--print` has stdout for itself."""
    from trio_gateway.commands.init_tables import left_table, taken_table
    from trio_gateway.commands.tables import console as console_of

    console = console_of(stderr=True)
    for why in engines.unfit:
        console.print(f"passed by: {why}", soft_wrap=True)
    if engines.engine is not None:
        version = f", version {engines.engine.version}" if engines.engine.version else ""
        console.print(f"Engine: {engines.engine.binary}{version}", soft_wrap=True)
    console.print(f"Hardware: {found.room.words}", soft_wrap=True)
    if found.plan.models:
        console.print()
        console.print(taken_table(found.plan.models, console.width))
    if found.left:
        console.print()
        console.print(left_table(found.left))
    console.print()


def _say_next(output: Path, count: int | None = None) -> None:
    models = "" if count is None else f" with {count} model{'s' if count > 1 else ''}"
    click.echo(f"Wrote {output}{models}. Next:")
    is_usual = output == Path(LOCAL_NAME) and not os.environ.get(VARIABLE)
    option = "" if is_usual else f" -c {shlex.quote(str(output))}"
    click.echo(f"  trio-gateway check{option}\n  trio-gateway serve{option}")
