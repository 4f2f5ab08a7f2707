"""Agent, Target, Settings: a program, what it is to use, and how it is told. Pure."""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Callable, Mapping, Sequence

import msgspec

KEY_VARIABLE = "TRIO_GATEWAY_KEY"
# Stands for the gateway's key in settings, so that what is printed has none in it.
KEY = f"${KEY_VARIABLE}"
NO_KEY = "none"  # most programs want one, whatever it is


class Target(msgspec.Struct, frozen=True):
    """`url`: of the gateway, without `/v1`. `context`: tokens, the most that the model has.
    `has_key`: the gateway asks for one. `certificate`: that clients have to trust; None: they do
    already. `folder`: for files of the gateway's own."""

    url: str
    model: str
    context: int
    has_key: bool = False
    certificate: str | None = None
    folder: str = ""

    @property
    def key(self) -> str:
        return KEY if self.has_key else NO_KEY


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments`: before the user's own. `unset`: variables that would get in the way. `files`: by
    path, below the target's folder."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    unset: tuple[str, ...] = ()
    files: Mapping[str, str] = {}


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """`first_prompt`: tokens that it sends before its user has typed a word. `uses_tools`: it does
    little without them. `install`: the command that installs `program`."""

    name: str
    title: str
    program: str
    install: str
    first_prompt: int
    settings_for: Callable[[Target], Settings]
    uses_tools: bool = True


def complete(settings: Settings, environ: Mapping[str, str], key: str | None) -> dict[str, str]:
    """The environment that the program gets."""
    given = {name: text for name, text in environ.items() if name not in settings.unset}
    for name, text in settings.environment.items():
        given[name] = text if text != KEY else key or NO_KEY
    return given


def as_shell(
    agent: Agent, settings: Settings, arguments: Sequence[str], shown_key: str | None = None
) -> str:
    """The lines that do the same in a shell, which has the gateway's key in a variable; that is set
    by them if the key is shown."""
    lines = []
    if shown_key is not None:
        lines.append(f"export {KEY_VARIABLE}={shlex.quote(shown_key)}")
    for path, text in settings.files.items():
        lines.append(f"mkdir -p {shlex.quote(os.path.dirname(path))}")
        lines.append(f"printf '%s' {shlex.quote(text)} > {shlex.quote(path)}")
    if settings.unset:
        lines.append(f"unset {' '.join(settings.unset)}")
    for name, text in settings.environment.items():
        if name != KEY_VARIABLE:
            value = f'"{KEY}"' if text == KEY else shlex.quote(text)
            lines.append(f"export {name}={value}")
    lines.append(shlex.join([agent.program, *settings.arguments, *arguments]))
    return "\n".join(lines)
