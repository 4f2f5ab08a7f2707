"""`trio-gateway service`: has the system start the gateway, and start it again should it fail."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trio_gateway.commands.loading import EXIT_FAILED, config_option, load_or_exit
from trio_gateway.service.installation import NAME, Unsuitable, check_lasting, installation
from trio_gateway.service.supervisor import (
    NoSupervisor,
    NotOurs,
    Supervisor,
    check_running,
    is_ours,
    supervisor,
    write,
)


def _checked_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise click.BadParameter("letters, digits, `-`, `_` and `.`, and a letter or digit first")
    return name


name_option = click.option(
    "--name", default="trio-gateway", show_default=True, callback=_checked_name,
    help="Of the service, should there be several.",
)  # fmt: skip


@click.group()
def service() -> None:
    """Run the gateway as a service of yours: systemd's on Linux, launchd's on macOS."""


@service.command()
@config_option
@name_option
@click.option("--watch", is_flag=True, help="Reload whenever the configuration has changed.")
@click.option("--print", "only_print", is_flag=True, help="Show the service's file; do nothing.")
def install(path: Path | None, name: str, *, watch: bool, only_print: bool) -> None:
    """Install the service, or install it anew, and start it."""
    config, why = load_or_exit(path)
    with _failures():
        wanted = installation(config, name, watch=watch, environ=os.environ)
        by = supervisor(name)
        text = by.text(wanted)
        if only_print:
            click.echo(text, nl=False)
            return
        check_lasting()
        check_running(by, os.environ)
        click.echo(f"Configuration: {config.source} ({why})")
        write(by.path, text)
    click.echo(f"Written: {by.path}")
    if config.secret_variables and not wanted.secrets.exists():
        click.echo(
            f"The configuration reads {', '.join(sorted(config.secret_variables))}, which the "
            f"service does not know: write NAME=value lines into {wanted.secrets} (chmod 600), and "
            "install again."
        )
    click.echo("Starting …")
    if by.start():
        click.echo(
            "The service does not start. Its log says why:\n"
            f"  trio-gateway service logs{_of(name)}",
            err=True,
        )
        sys.exit(EXIT_FAILED)
    click.echo(f"It runs, and starts again should it fail. {by.hint()}")


@service.command()
@name_option
def uninstall(name: str) -> None:
    """Stop the service, and remove its file. Nothing else is removed."""
    with _failures():
        by = _installed(name)
        if not is_ours(by.path):
            raise NotOurs(f"{by.path} was not written by `trio-gateway service install`")
        try:
            check_running(by, os.environ)
        except NoSupervisor as error:
            by.path.unlink()
            click.echo(f"Removed: {by.path}. What runs was not stopped: {error}", err=True)
            sys.exit(EXIT_FAILED)
        code = by.stop()
        by.path.unlink()
        by.forget()
    if code:
        sys.exit(EXIT_FAILED)
    click.echo(f"Stopped, and removed: {by.path}")


@service.command()
@name_option
def status(name: str) -> None:
    """Show what the system says of the service."""
    with _failures():
        by = _installed(name)
        check_running(by, os.environ)
    sys.exit(by.status())


@service.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--lines", default=100, show_default=True, type=click.IntRange(1))
def logs(name: str, *, follow: bool, lines: int) -> None:
    """Show the service's log."""
    with _failures():
        by = _installed(name)
        if sys.platform.startswith("linux") and shutil.which("journalctl") is None:
            raise NoSupervisor("journalctl, which shows a service's log, is not here")
    sys.exit(by.logs(follow=follow, lines=lines))


def _installed(name: str) -> Supervisor:
    by = supervisor(name)
    if not by.path.exists():
        raise NoSupervisor(
            f"no service {name} is installed ({by.path} is not there); "
            f"`trio-gateway service install{_of(name)} -c FILE` installs one"
        )
    return by


def _of(name: str) -> str:
    return "" if name == "trio-gateway" else f" --name {name}"


@contextmanager
def _failures() -> Iterator[None]:
    """What cannot be done is said in a sentence."""
    try:
        yield
    except (NoSupervisor, NotOurs, Unsuitable) as error:
        click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except OSError as error:
        click.echo(f"trio-gateway: {error.filename}: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)
