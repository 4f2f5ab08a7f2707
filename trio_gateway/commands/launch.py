"""`trio-gateway launch`: starts an agent that uses the running gateway, and becomes it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

import click
import platformdirs

from trio_gateway.agents.choosing import Candidate, NoChoice, choose
from trio_gateway.agents.known import AGENTS, NAMES
from trio_gateway.agents.settings import (
    Agent,
    Settings,
    Target,
    as_shell,
    complete,
)
from trio_gateway.commands.asking import ModelName, asked_gateway, asking_options
from trio_gateway.commands.loading import EXIT_FAILED, load_or_exit

_PASSED_ON = "passed on"


class _WithArguments(click.Command):
    """What stands behind `--` is the agent's, and no model."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_PASSED_ON] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command(
    cls=_WithArguments, options_metavar="[OPTIONS]", epilog="All behind `--` is the agent's."
)
@click.argument("agent", required=False, type=click.Choice([*NAMES], case_sensitive=False))
@click.argument("model", required=False, type=ModelName())
@asking_options
@click.option("--print", "only_print", is_flag=True, help="Show the settings; start nothing.")
@click.option("--show-key", is_flag=True, help="With --print: show the gateway's key as well.")
@click.pass_context
def launch(
    ctx: click.Context,
    agent: str | None,
    model: str | None,
    path: Path | None,
    key_file: TextIO | None,
    *,
    only_print: bool,
    show_key: bool,
) -> None:
    """Start an agent that uses the running gateway.

    It gets a model whose context holds its first prompt, and all that it needs in variables and
    options of this start: no file of yours is changed. Without AGENT: what is installed.
    """
    if agent is None:
        _list_agents()
        return
    known = NAMES[agent]
    program = shutil.which(known.program)
    if program is None and not only_print:
        _fail(f"{known.title} is not installed: `{known.program}` is not on PATH. {_how(known)}")
    with asked_gateway(path, key_file) as gateway:
        listed, key = gateway.get("/v1/models")["data"], gateway.key
    try:
        choice = choose(known, [_candidate(one) for one in listed], model)
    except NoChoice as error:
        _fail(str(error))
    target = _target(path, choice.model, has_key=key is not None)
    settings = known.settings_for(target)
    arguments: list[str] = ctx.meta[_PASSED_ON]
    click.echo(f"# {known.title} with {choice.model.name}: {choice.why}", err=not only_print)
    for doubt in choice.doubts:
        click.echo(f"# but {doubt}", err=not only_print)
    if only_print:
        click.echo(as_shell(known, settings, arguments, key if show_key else None))
        return
    assert program is not None, "looked for above"
    _become(program, settings, arguments, key)


def _become(program: str, settings: Settings, arguments: list[str], key: str | None) -> None:
    for path, text in settings.files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    command = [program, *settings.arguments, *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, command, complete(settings, os.environ, key))
    except OSError as error:
        _fail(f"{program} cannot be started: {error.strerror}")


def _list_agents() -> None:
    for agent in AGENTS:
        found = shutil.which(agent.program)
        state = f"installed: {found}" if found else f"not installed: {agent.install}"
        click.echo(
            f"{agent.name:11} {agent.title:12} {agent.first_prompt:>7,} tokens at first   {state}"
        )


def _candidate(listed: dict[str, Any]) -> Candidate:
    abilities = listed.get("capabilities") or ()
    return Candidate(
        name=listed["id"],
        context=listed.get("context_length") or 0,
        chats="completion" in abilities or not abilities,
        takes_tools="tools" in abilities,
        is_loaded=bool(listed.get("loaded")),
        aliases=tuple(listed.get("aliases") or ()),
    )


def _target(path: Path | None, model: Candidate, *, has_key: bool) -> Target:
    config, _ = load_or_exit(path)
    server = config.server
    if not server.listen:
        _fail("the gateway has only a socket file, and agents want an address: set listen_v4")
    scheme = "http" if server.tls is None else "https"
    return Target(
        url=server.listen[0].from_here.url_with(scheme),
        model=model.name,
        context=model.context,
        has_key=has_key,
        certificate=None if server.tls is None else str(server.tls.certificate),
        folder=str(platformdirs.user_cache_path("trio-gateway", appauthor=False) / "launch"),
    )


def _how(agent: Agent) -> str:
    return f"Install it: {agent.install}"


def _fail(why: str) -> None:
    click.echo(f"trio-gateway: {why}", err=True)
    sys.exit(EXIT_FAILED)
