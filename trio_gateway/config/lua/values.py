"""The values that a configuration's program left, as its readers see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

BYTES = "bytes"  # the kind of a string that is not UTF-8 text


class NotText(Exception):
    """A table was looked into that has a string which is not UTF-8 text."""


class Other(NamedTuple):
    """A value that means nothing here, such as a function."""

    kind: str


Value: TypeAlias = "bool | int | float | str | Table | Other | None"


class Table:
    """A Lua table: its keys and values in the order in which Lua had them.

    Pairs and not a dict: to Python, the keys 1, 1.0 and true are one.
    """

    def __init__(self, entries: list[tuple[Value, Value]]) -> None:
        self._entries = entries
        self._named = {key: value for key, value in entries if isinstance(key, str)}
        self._is_text = all(Other(BYTES) not in entry for entry in entries)

    def __getitem__(self, name: str) -> Any:
        """The value at a name, None without one."""
        self._check()
        return self._named.get(name)

    def __iter__(self) -> Iterator[Any]:
        return iter([key for key, _ in self.items()])

    def keys(self) -> list[Any]:
        return [*self]

    def items(self) -> list[tuple[Any, Any]]:
        self._check()
        return self._entries

    def _check(self) -> None:
        if not self._is_text:
            raise NotText


def table_from(entries: list[Any]) -> Table:
    """The table that `program.py` wrote as an array of keys and values."""
    values = [_value_from(entry) for entry in entries]
    return Table([*zip(values[::2], values[1::2], strict=True)])


def _value_from(written: Any) -> Value:
    if isinstance(written, list):
        return table_from(written)
    if isinstance(written, dict):
        kind = written.get("kind")
        return float(written["float"]) if kind is None else Other(kind)
    value: bool | int | float | str | None = written
    return value
