"""llama-swap's filters of requests, as a `rewrite`."""

from __future__ import annotations

from collections.abc import Mapping

from trio_gateway.converting.description import Table
from trio_gateway.converting.values import Reader, lua_json
from trio_gateway.converting.yaml_text import Value

# What the gateway itself goes by.
_NOT_REWRITTEN = frozenset({"model", "stream", "messages", "prompt", "input"})


def rewrite_of(reader: Reader, name: str, aliases: list[str]) -> Table:
    """Empty: nothing. `name`, `aliases`: of the model; names that only its filters have are added
    to the aliases."""
    filters = Reader(
        reader.description, reader.at("filters"), reader.inner("filters"), reader.environment
    )
    values = _values(filters, "setParams", filters.inner("setParams"))
    by_name = filters.inner("setParamsByID")
    for other in by_name:
        if other != name and other not in aliases:
            aliases.append(other)
    if [*by_name] == [name] and not aliases:
        own = by_name[name]
        values |= _values(filters, "setParamsByID", own if isinstance(own, dict) else {})
    elif by_name:
        filters.remark(
            "setParamsByID",
            f"the names {', '.join(by_name)} mean the same here; clients send the parameters, or a "
            "second model has them in its `rewrite` (docs/configuration.md#rewriting-requests)",
        )
    stripped = filters.texts("stripParams") or filters.texts("strip_params")
    remove = []
    for word in ",".join(stripped).split(","):
        field = word.strip()
        if field in _NOT_REWRITTEN:
            filters.remark("stripParams", f"{field} is always passed on")
        elif field and field not in values and field not in remove:
            remove.append(field)
    for key in filters.table:
        if key not in ("setParams", "setParamsByID", "stripParams", "strip_params"):
            filters.remark(key, "unknown; left out")
    rewrite: Table = {}
    if values:
        rewrite["set"] = values
    if remove:
        rewrite["remove"] = list(remove)
    return rewrite


def _values(filters: Reader, key: str, found: Mapping[str, Value]) -> Table:
    values: Table = {}
    for field, value in found.items():
        if field in _NOT_REWRITTEN:
            filters.remark(key, f"{field} cannot be set by the gateway; left out")
        elif (converted := lua_json(value)) is None:
            filters.remark(key, f"{field}: Lua has no null and no empty list; left out")
        else:
            values[field] = converted
    return values
