"""Values of another program's file, read with its own leniency: a number where a text belongs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from trio_gateway.converting.description import VARIABLE, Description, expanded
from trio_gateway.converting.macros import plain
from trio_gateway.converting.yaml_text import Value
from trio_gateway.finding.lua_text import Code, LuaValue, text

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


class Reader:
    """One table of the file. What is wrong in it becomes a remark, and is left out."""

    def __init__(
        self,
        description: Description,
        where: str,
        table: Mapping[str, Value],
        environment: Mapping[str, str],
    ) -> None:
        self.description, self.where, self.table = description, where, table
        self.environment = environment

    def at(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def remark(self, key: str, what: str) -> None:
        self.description.remark(self.at(key), what)

    def text(self, key: str) -> str:
        """Empty: there is none."""
        value = self.table.get(key)
        if isinstance(value, list | dict):
            self.remark(key, "left out: expected a text")
            return ""
        return plain(value)

    def texts(self, key: str) -> list[str]:
        value = self.table.get(key)
        if value is None:
            return []
        if isinstance(value, dict):
            self.remark(key, "left out: expected a list")
            return []
        items = value if isinstance(value, list) else [value]
        return [plain(item) for item in items if not isinstance(item, list | dict)]

    def inner(self, key: str) -> dict[str, Value]:
        value = self.table.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.remark(key, "left out: expected names and values")
            return {}
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.table.get(key)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(expanded(value, self.environment).lower())
            if value is None:
                self.remark(key, "left out: expected true or false")
        return value if isinstance(value, bool) else default

    def number(self, key: str) -> int | None:
        """None: there is none. A variable of the environment counts as it is now."""
        value = self.table.get(key)
        if isinstance(value, str):
            found = expanded(value, self.environment).strip()
            if not _NUMBER.fullmatch(found):
                self.remark(key, "left out: expected a number")
                return None
            value = float(found)
        if isinstance(value, bool) or not isinstance(value, int | float):
            if value is not None:
                self.remark(key, "left out: expected a number")
            return None
        return int(value) if abs(value) < 2**53 else None


def url_parts(url: str) -> SplitResult:
    """Without any, where it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return urlsplit("")
    return parts


def lua_text(value: str) -> LuaValue:
    """A text; the variables of the environment in it are read when the configuration is."""
    parts, end = [], 0
    for found in VARIABLE.finditer(value):
        if before := value[end : found.start()]:
            parts.append(text(before))
        parts.append(f"env({text(found[1])})")
        end = found.end()
    if not parts:
        return value
    if rest := value[end:]:
        parts.append(text(rest))
    return Code(" .. ".join(parts))


def lua_texts(values: tuple[str, ...] | list[str]) -> list[LuaValue]:
    return [lua_text(value) for value in values]


def lua_json(value: Value) -> LuaValue | None:
    """A value of a request; None: Lua's tables cannot have it (`null`, an empty list)."""
    if value is None or value == []:
        return None
    if isinstance(value, str):
        return lua_text(value)
    if isinstance(value, list):
        items = [lua_json(item) for item in value]
        return None if any(item is None for item in items) else [i for i in items if i is not None]
    if isinstance(value, dict):
        entries = {key: lua_json(item) for key, item in value.items()}
        if any(item is None for item in entries.values()):
            return None
        return {key: item for key, item in entries.items() if item is not None}
    return value
