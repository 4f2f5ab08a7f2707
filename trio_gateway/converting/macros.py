"""llama-swap's macros: `${name}` in values, global ones and a model's own. Pure.

Variables of the environment (`${env.NAME}`), `${PORT}` and `${PID}` stay: the gateway knows them,
or they become calls of `env`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from trio_gateway.converting.description import NotConvertible
from trio_gateway.converting.yaml_text import Value

_USED = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_KEPT = frozenset({"PORT", "PID"})
_MOST_TEXT = 1_000_000  # characters; macros of macros can double each time

Macros = Mapping[str, Value]


def macros_of(where: str, value: Value) -> dict[str, Value]:
    """Raises NotConvertible: one is no scalar, or has itself in it."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotConvertible(f"{where}: expected names and values")
    for name, text in value.items():
        if isinstance(text, list | dict):
            raise NotConvertible(f"{where}.{name}: expected a text, a number or true or false")
        if isinstance(text, str) and f"${{{name}}}" in text:
            raise NotConvertible(f"{where}.{name}: has itself in it")
    return dict(value)


def for_model(name: str, of_all: Macros, own: Macros) -> dict[str, Value]:
    """A model's own win; those that they replace keep their place in the order."""
    return {"MODEL_ID": name, **of_all, **own}


def substituted(value: Value, macros: Macros) -> Value:
    """The last macro first, so that one may have earlier ones in it. What is nothing but a macro
    gets its value as it is: a number stays one."""
    if isinstance(value, list):
        return [substituted(item, macros) for item in value]
    if isinstance(value, dict):
        return {key: substituted(item, macros) for key, item in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    result: Value = value
    for name in reversed([*macros]):
        slug = f"${{{name}}}"
        if result == slug:
            result = macros[name]
        if not isinstance(result, str):
            return result
        if slug in result:
            result = result.replace(slug, plain(macros[name]))
        if len(result) > _MOST_TEXT:
            raise NotConvertible(f"the macro {name} makes a text longer than {_MOST_TEXT:,}")
    return result


def unknown(value: Value) -> str | None:
    """A macro that nothing has put in; None: there is none."""
    match value:
        case str():
            return next((n for n in _USED.findall(value) if n not in _KEPT), None)
        case list():
            return next(filter(None, map(unknown, value)), None)
        case dict():
            return next(filter(None, map(unknown, value.values())), None)
    return None


def plain(value: Value) -> str:
    """A scalar as it stands in a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
