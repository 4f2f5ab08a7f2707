"""The configuration in force as it may be shown: every secret in it is `•••`. Pure.

What is hidden is hidden by kind, not by name alone: keys and their hashes, whatever an engine's
environment is given, values of options that are named like secrets, what an address has before its
`@` and after its `?`, and any text that has one of the configuration's own keys in it.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from trio_gateway.config.access_schema import ApiKey
from trio_gateway.config.engine_types import EngineType
from trio_gateway.config.schema import GatewayConfig, Secret
from trio_gateway.config.secret_variables import keys_of

HIDDEN = "•••"
_SECRET_WORD = re.compile(
    r"key|token|secret|passw|credential|authorization|bearer|cookie|auth", re.IGNORECASE
)
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY_OF_URL = re.compile(r"(?<=\?)[^\s#]+(?=$|[\s#])")
_OPTION = re.compile(r"(--?[A-Za-z][\w.-]*)(=)?")
# Of these an option's name speaks and its value is no secret.
_HARMLESS = frozenset({"--tokenizer", "--max-tokens", "--n-tokens", "--tokens", "--keep"})
LEFT_OUT = frozenset({"source", "notes", "secret_variables"})


def shown_configuration(config: GatewayConfig) -> dict[str, Any]:
    """What JSON can hold: tables as objects, sets in order, infinite times as `never`."""
    hide = _Hider({*keys_of(config.server.access, config.models)})
    shown = hide.value(config)
    assert isinstance(shown, dict)
    return {name: value for name, value in shown.items() if name not in LEFT_OUT}


class _Hider:
    """`secrets`: the configuration's own keys."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted((s for s in secrets if s), key=len, reverse=True)

    def value(self, value: Any, name: str = "") -> Any:
        match value:
            case Secret():
                return HIDDEN
            case EngineType():
                return value.value
            case ApiKey():
                return {**self._fields(value), "secret": HIDDEN}
            case enum.Enum():
                return value.name.lower() if isinstance(value, int) else value.value
            case bool() | int() | None:
                return value
            case float():
                return "never" if math.isinf(value) else value
            case str() | PurePath():
                return self._text(str(value), name)
            case msgspec.Struct():
                return self._fields(value)
            case Mapping():
                return {
                    str(key): HIDDEN if name == "env" else self.value(inner, str(key))
                    for key, inner in value.items()
                }
            case frozenset() | set():
                return sorted(self.value(item) for item in value)
            case tuple() | list():
                return self._items(value, name)
        return self._text(str(value), name)

    def _fields(self, struct: msgspec.Struct) -> dict[str, Any]:
        names = [field.name for field in msgspec.structs.fields(struct)]
        return {name: self.value(getattr(struct, name), name) for name in names}

    def _items(self, items: Sequence[Any], name: str) -> list[Any]:
        """Arguments of a command: what follows an option that is named like a secret is one."""
        shown: list[Any] = []
        hides_next = False
        for item in items:
            if not isinstance(item, str):
                shown.append(self.value(item, name))
                continue
            option = _OPTION.match(item)
            is_secret = option is not None and _is_secret(option[1])
            if hides_next and option is None:
                shown.append(HIDDEN)
            elif is_secret and option is not None and option[2]:
                shown.append(f"{option[1]}={HIDDEN}")
            else:
                shown.append(self._text(item))
            hides_next = is_secret
        return shown

    def _text(self, text: str, name: str = "") -> str:
        if name and _SECRET_WORD.search(name) and name not in _NAMED_SO:
            return HIDDEN
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if "://" in text:
            text = _QUERY_OF_URL.sub(HIDDEN, _USER_OF_URL.sub(f"{HIDDEN}@", text))
        return text


# Fields of the schema whose names have such a word in them and which hold none.
_NAMED_SO = frozenset({"key_file", "keepalive", "allowed_hosts", "key"})


def _is_secret(option: str) -> bool:
    return option not in _HARMLESS and bool(_SECRET_WORD.search(option.replace("keep", "")))
