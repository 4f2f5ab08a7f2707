"""`trio-gateway`: its commands, each in a file of its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

import click

from trio_gateway import __version__

# Where each of them is: the module, and its name there.
COMMANDS: Mapping[str, str] = {
    "cancel": "cancel:cancel",
    "check": "check:check",
    "choose": "choose:choose",
    "cluster": "cluster:cluster",
    "doctor": "doctor:doctor",
    "explain": "explain:explain",
    "init": "init:init",
    "key": "key:key",
    "launch": "launch:launch",
    "load": "models:load",
    "logs": "logs:logs",
    "pin": "models:pin",
    "reload": "reload:reload",
    "requests": "requests:requests",
    "serve": "serve:serve",
    "service": "service:service",
    "status": "status:status",
    "top": "top:top",
    "unload": "models:unload",
    "yield": "yield_:yield_",
}


class _Commands(click.Group):
    """Loads the command that is asked for. `serve`, which stays, has no use for all others: they
    and what they import take 1 MB, and some time at each start."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (place := COMMANDS.get(cmd_name)) is None:
            return None
        module, _, name = place.partition(":")
        found = getattr(importlib.import_module(f"trio_gateway.commands.{module}"), name)
        return cast(click.Command, found)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def root() -> None:
    """An OpenAI-compatible service over the llama.cpp engines of this machine."""
