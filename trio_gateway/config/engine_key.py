"""Where the key is that an engine asks for, as far as a configuration says it. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import Secret, VariantConfig
from trio_gateway.config.server_options import API_KEY, API_KEY_FILE

_SENDABLE = re.compile(r"[^\x00-\x1f\x7f]+")
_MASKED = re.compile(r"\S*\*\*\S*")  # of a key, some show the beginning and the end
# As `docker run` and `env` take them. What has blanks in it is a script.
_IN_ARGS = re.compile(r"(?:-e|--env=)?(\w+)=(\S+)")


class KeyPlace(enum.Enum):
    """What to check if the engine refuses the key; the values are for messages."""

    CONFIGURED = "`api_key` of the model or its variant"
    ARGS = f"{API_KEY.name} in its `args`"
    FILE = f"the first line of the file that {API_KEY_FILE.name} in its `args` names"
    ENV = "{variable} in its `env`"
    ENV_IN_ARGS = "{variable} in its `args`"
    INHERITED = "{variable} in the gateway's environment"
    MADE = "made for this start"
    NONE = "none"


class EngineKey(msgspec.Struct, frozen=True):
    """The key of one engine. `variable`: of an environment, if it is in one."""

    place: KeyPlace
    secret: Secret | None = None
    variable: str = ""

    def __str__(self) -> str:
        """Where it is."""
        return self.place.value.format(variable=self.variable)

    def refusal(self, engine: str, status: int, said: str = "") -> str:
        """In words: the engine (its name) answered 401 or 403, and what to do about it. What it
        said is left out if it is about the key, a part of which it may quote."""
        asks = "asks for a key" if status == 401 else "forbids the request"
        match self.place:
            case KeyPlace.NONE | KeyPlace.MADE:
                cure = "set `api_key` of the model or its variant"
            case KeyPlace.CONFIGURED:
                cure = f"it does not take the gateway's; check {self}"
            case _:
                cure = f"it does not take the gateway's, from {self}; check that, or set `api_key`"
        if status != 401:
            cure = f"if that is for its key: {cure}"
        words = f"{engine} {asks} (HTTP {status}); {cure}"
        if status == 401 or not said:
            return words
        if self.secret is not None:
            said = said.replace(self.secret.reveal(), "…")
        return f"{words}. It says: {_MASKED.sub('…', said)}"


def is_sendable(key: str) -> bool:
    """Whether a header can carry it."""
    return _SENDABLE.fullmatch(key) is not None


def configured_key(variant: VariantConfig, variables: Sequence[str]) -> EngineKey | None:
    """The key that the configuration gives its engine, or says that it has; None: none, or one in
    a file (`key_file`).

    Args:
        variables: of the environment, from which such engines take their key.
    """
    if variant.options.api_key is not None:
        return EngineKey(KeyPlace.CONFIGURED, variant.options.api_key)
    given = EngineArgs(variant.args).given(API_KEY)
    if given is not None and given.how not in variables and (key := _first(given.value)):
        return EngineKey(KeyPlace.ARGS, Secret(key))
    for variable, value in _assignments(variant.args):
        if variable in variables and (key := _first(value)):
            return EngineKey(KeyPlace.ENV_IN_ARGS, Secret(key), variable)
    if key_file(variant) is not None:
        return None
    return _key_of_environment(variant.env, variables, KeyPlace.ENV)


def inherited_key(environment: Mapping[str, str], variables: Sequence[str]) -> EngineKey | None:
    """The key that an engine takes from what it inherits."""
    return _key_of_environment(environment, variables, KeyPlace.INHERITED)


def key_file(variant: VariantConfig) -> str | None:
    """The file that has an engine's keys, one a line, as its arguments name it."""
    return variant.engine_args.value(API_KEY_FILE) or None


def key_of_file(text: str) -> EngineKey | None:
    """The first one in such a file."""
    lines = (line.strip() for line in text.splitlines())
    key = next(filter(None, lines), None)
    return EngineKey(KeyPlace.FILE, Secret(key)) if key is not None else None


def _key_of_environment(
    environment: Mapping[str, str], variables: Sequence[str], place: KeyPlace
) -> EngineKey | None:
    for variable in variables:
        if key := _first(environment.get(variable)):
            return EngineKey(place, Secret(key), variable)
    return None


def _first(keys: str | None) -> str:
    """llama-server takes several, with commas between them."""
    return next((key for part in (keys or "").split(",") if (key := part.strip())), "")


def _assignments(args: Sequence[str]) -> Iterable[tuple[str, str]]:
    for arg in args:
        if match := _IN_ARGS.fullmatch(arg):
            yield match[1], match[2]
