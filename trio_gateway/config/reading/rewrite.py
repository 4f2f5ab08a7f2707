"""Reader for a model's `rewrite`: fields of requests that are set, defaulted or removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.config.reading import fields
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import RewriteConfig

# What the gateway itself goes by, or what a request is about.
_NOT_REWRITTEN = frozenset({"model", "stream", "messages", "prompt", "input"})
_DEPTH_MAX = 20


def rewrite(mistakes: Mistakes, path: str, value: Any) -> RewriteConfig | None:
    record = Record(mistakes, path, value)
    result = RewriteConfig(
        set=record.read("set", _values, {}),
        default=record.read("default", _values, {}),
        remove=record.read("remove", fields.names, ()),
        constant_billing_line=record.read("constant_billing_line", fields.boolean, None),
    )
    record.finish()
    for name in (*result.set, *result.default, *result.remove):
        if name in _NOT_REWRITTEN:
            mistakes.add(path, f'"{name}" cannot be rewritten')
    twice = result.set.keys() & {*result.default, *result.remove}
    for name in sorted(twice):
        mistakes.add(path, f'"{name}" is set and also in default or remove')
    return result


def _values(mistakes: Mistakes, path: str, value: Any) -> Mapping[str, bytes] | None:
    if not fields.is_table(value):
        mistakes.expected(path, "a table of fields", value)
        return None
    result = {}
    for key, entry in value.items():
        if not isinstance(key, str):
            mistakes.add(path, f"expected names of fields as keys, got {fields.show(key)}")
        else:
            json = _json(mistakes, f"{path}.{key}", entry)
            result[key] = msgspec.json.encode(json)
    return result


def _json(mistakes: Mistakes, path: str, value: Any, depth: int = 0) -> Any:
    """A Lua value as JSON: a table with elements is an array, any other an object."""
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    if not fields.is_table(value) or depth > _DEPTH_MAX:
        mistakes.expected(path, "a string, a number, a boolean, or a table of them", value)
        return None
    entries = [*value.items()]
    if entries and all(type(key) is int for key, _ in entries):
        found = fields.items(mistakes, path, value, "an array")
        return [_json(mistakes, at, entry, depth + 1) for at, entry in found]
    result = {}
    for key, entry in entries:
        if isinstance(key, str):
            result[key] = _json(mistakes, f"{path}.{key}", entry, depth + 1)
        else:
            mistakes.add(path, f"expected either names or an array, got {fields.show(key)}")
    return result
