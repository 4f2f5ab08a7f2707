"""Reads YAML as llama-swap does: YAML 1.2's words for booleans and numbers, keys as texts.

PyYAML alone would take `on` and `yes` for booleans, `12:30:45` for a number, and the last of two
equal keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from trio_gateway.converting.description import NotConvertible

if TYPE_CHECKING:
    import yaml

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

_MOST_VALUES = 100_000  # aliases can make a few lines into billions
_DEEPEST = 64
_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", re.compile(r"~|null|Null|NULL|"), [*"~nN", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), [*"tTfF"]),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), [*"-+0123456789"]),
    (
        "float",
        re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan)"),
        [*"-+.0123456789"],
    ),
)

_KNOWN = frozenset(
    _TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


def read_yaml(text: str) -> Value:
    """Raises NotConvertible: it is no YAML, or has more in it than any configuration."""
    # Imported here: only this command needs it.
    import yaml

    loader_class: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}})
    for name, pattern, first in _SCALARS:
        whole = re.compile(rf"(?:{pattern.pattern})\Z")
        loader_class.add_implicit_resolver(_TAG + name, whole, first)
    try:
        loader = loader_class(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise NotConvertible(_told(error)) from None
    except RecursionError:
        raise NotConvertible("nested too deeply") from None
    return None if node is None else _Reading().value(node, 0)


class _Reading:
    def __init__(self) -> None:
        self._values = 0

    def value(self, node: yaml.Node, depth: int) -> Value:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise NotConvertible(f"more than {_MOST_VALUES:,} values (aliases of aliases?)")
        if depth > _DEEPEST:
            raise NotConvertible(f"{_line(node)}nested too deeply (an alias within itself?)")
        if node.tag not in _KNOWN:
            raise NotConvertible(f"{_line(node)}a tag that no configuration has")
        if node.id == "scalar":
            return _scalar(node)
        if node.id == "sequence":
            return [self.value(item, depth + 1) for item in node.value]
        found: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key, item in node.value:
            if key.id != "scalar":
                raise NotConvertible(f"{_line(key)}a key that is no text")
            if key.value == "<<" and key.style is None:
                merged = {**self._merged(item, depth), **merged}
            elif key.value in found:
                raise NotConvertible(f'{_line(key)}the key "{key.value}" is there twice')
            else:
                found[key.value] = self.value(item, depth + 1)
        return {**merged, **found}

    def _merged(self, node: yaml.Node, depth: int) -> Mapping[str, Value]:
        value = self.value(node, depth + 1)
        parts: Sequence[Value] = value if isinstance(value, list) else [value]
        merged: dict[str, Value] = {}
        for part in parts:
            if not isinstance(part, dict):
                raise NotConvertible(f"{_line(node)}<< needs a mapping")
            merged = {**part, **merged}
        return merged


def _scalar(node: yaml.Node) -> Value:
    text: str = node.value
    if "\0" in text:
        raise NotConvertible(f"{_line(node)}a NUL, which no text here can have")
    if node.tag == f"{_TAG}null":
        return None
    if node.tag == f"{_TAG}bool":
        return text.lower() == "true"
    try:
        if node.tag == f"{_TAG}int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if node.tag == f"{_TAG}float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise NotConvertible(f"{_line(node)}not a number") from None
    return text


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}: "


def _told(error: yaml.YAMLError) -> str:
    """Without the line itself, which may have a key in it."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)
