"""Checked reading of Lua tables: every error is noted with the path of its field, none is raised.

A reader takes a raw Lua value and its path and returns the checked value, or notes an error and
returns `None`; so one pass over a file finds all of its errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from trio_gateway.config.lua.values import Other, Table

T = TypeVar("T")
Reader = Callable[["Mistakes", str, Any], T | None]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}  # seconds
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(|B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE_UNITS = {
    "": 1, "B": 1,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip

_FIRST_KEYS = ("name", "binary", "urls")  # of a table, those that people write first
_INTEGER_MAX = 2**53  # beyond it, a Lua float is no longer exact


class Mistakes:
    """The errors found so far, in the order of the file; one line each, or more if that helps."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, path: str, message: str, *below: str) -> None:
        """`below`: further lines, such as those that a user may copy into the file."""
        lines = (f"{path}: {message}", *(f"    {line}" for line in below))
        self.lines.append("\n".join(map(printable, lines)))

    def expected(self, path: str, what: str, value: Any) -> None:
        self.add(path, f"expected {what}, got {show(value)}")


def show(value: Any) -> str:
    """A Lua value as an error message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{printable(value)}"' if len(value) <= 60 else f'"{printable(value[:57])}…"'
    if isinstance(value, Table):
        return "a table"
    return f"a {value.kind}" if isinstance(value, Other) else str(value)


def printable(message: str) -> str:
    """The text on one line: line breaks and control characters become escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


def near_word(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant, if any; `engineIdleTimeout` is taken for
    `engine_idle_timeout`."""
    by_lower = {name.lower(): name for name in known}
    lower = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower()
    near = difflib.get_close_matches(lower, by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A hint at the known word that was meant, as the end of a message; empty if none is near."""
    near = near_word(word, known, cutoff=cutoff)
    return f'; did you mean "{near}"?' if near is not None else ""


def is_table(value: Any) -> bool:
    return isinstance(value, Table)


class Record:
    """A table with named fields. `finish` notes the unknown ones.

    `words`: what to say of keys that are known from elsewhere (`familiar_words.py`).
    """

    def __init__(
        self, mistakes: Mistakes, path: str, table: Any, words: Mapping[str, str] | None = None
    ) -> None:
        self._mistakes, self.path, self._words = mistakes, path, words or {}
        self._values: dict[str, Any] = {}
        self._stray: list[Any] = []
        self._known: list[str] = []
        if is_table(table):
            for key, value in table.items():
                if isinstance(key, str):
                    self._values[key] = value
                else:
                    self._stray.append(key)
        elif table is not None:
            mistakes.expected(path, "a table", table)

    def field_path(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def inner(self, key: str, words: Mapping[str, str] | None = None) -> Record:
        """The table at a key that was read already; an empty one without it."""
        value = self._values.get(key)
        return Record(
            self._mistakes, self.field_path(key), value if is_table(value) else None, words
        )

    def read(self, key: str, reader: Reader[T], default: T) -> T:
        """The checked field, or `default` where it is absent or wrong."""
        self._known.append(key)
        if (raw := self._values.get(key)) is None:
            return default
        value = reader(self._mistakes, self.field_path(key), raw)
        return default if value is None else value

    def require(self, key: str, reader: Reader[T], what: str, default: T) -> T:
        """As `read`, but its absence is an error."""
        if not self.has(key):
            self._known.append(key)
            self._mistakes.add(self.field_path(key), f"missing; expected {what}")
            return default
        return self.read(key, reader, default)

    def finish(self) -> None:
        for key in self._values:
            if key not in self._known:
                known = self._words.get(key)
                hint = nearest(key, self._known) if known is None else f"; {known}"
                self._mistakes.add(self.field_path(key), f"unknown key{hint}")
        for stray in self._stray:
            entry = f"the entry [{show(stray)}]"
            self._mistakes.add(self.path, f"expected named fields only, got {entry}")


def tables(mistakes: Mistakes, path: str, value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """The tables of an array, each with its path."""
    named = sorted(key for key in value if isinstance(key, str)) if is_table(value) else []
    if named and len(named) == len([*value]):
        name = path.rpartition(".")[2]
        if all(is_table(value[key]) for key in named):
            hint = f"write {name} = {{ {{ name = {show(named[0])}, … }} }}"
        else:
            key = next((key for key in _FIRST_KEYS if key in named), named[0])
            hint = f"it needs another pair of braces: {name} = {{ {{ {key} = … }} }}"
        mistakes.add(path, f"expected {what}; {hint}")
        return
    for at, entry in items(mistakes, path, value, what):
        if is_table(entry):
            yield at, entry
        else:
            mistakes.expected(at, "a table", entry)


def items(mistakes: Mistakes, path: str, value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """The elements of an array, each with its path; holes and named keys are errors."""
    if not is_table(value):
        mistakes.expected(path, what, value)
        return
    numbered: dict[int, Any] = {}
    for key, entry in value.items():  # no dict of all: to Python, the keys 1 and true are one
        if type(key) is int and key >= 1:
            numbered[key] = entry
        else:
            mistakes.add(path, f"expected {what}, got the key {show(key)} in it")
    for index in range(1, max(numbered, default=0) + 1):
        if index not in numbered:
            # Reported once: a large index would give a line for every missing element.
            mistakes.add(path, f"expected {what}, but element {index} is nil (an undefined name?)")
            break
    for index in sorted(numbered):
        yield f"{path}[{index}]", numbered[index]


def anything(mistakes: Mistakes, path: str, value: Any) -> Any:
    return value


def table(mistakes: Mistakes, path: str, value: Any) -> bool | None:
    """Whether it is a table: `Record.inner` reads what is in it."""
    if is_table(value):
        return True
    mistakes.expected(path, "a table", value)
    return None


def table_or_false(mistakes: Mistakes, path: str, value: Any) -> bool | None:
    """Whether it is a table; `false` means "not at all"."""
    if value is False or is_table(value):
        return value is not False
    mistakes.expected(path, "a table, or false", value)
    return None


def string(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if isinstance(value, str) and value and "\0" not in value:
        return value
    mistakes.expected(path, "a string that is not empty", value)
    return None


def name(mistakes: Mistakes, path: str, value: Any) -> str | None:
    """A string that fits into one line of a log and into an HTTP header."""
    if isinstance(value, str) and value and value.isprintable() and value == value.strip():
        return value
    mistakes.expected(path, "a name (one line, no spaces around it)", value)
    return None


def names(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    found = [name(mistakes, at, v) for at, v in items(mistakes, path, value, "an array of names")]
    return tuple(v for v in found if v is not None)


def text(mistakes: Mistakes, path: str, value: Any) -> str | None:
    """A string that may be empty."""
    if isinstance(value, str) and "\0" not in value:
        return value
    number = _number(value)
    hint = f' (write "{number:.15g}", or tostring(…))' if number is not None else ""
    mistakes.add(path, f"expected a string, got {show(value)}{hint}")
    return None


def boolean(mistakes: Mistakes, path: str, value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    mistakes.expected(path, "true or false", value)
    return None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return value if good and abs(value) < float("inf") else None


def _seconds(value: Any) -> float | None:
    """A number of seconds, or text with a unit: `"90s"`, `"5m"`, `"1.5h"`, `"500ms"`."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _DURATION_UNITS[match[2]]
    return _number(value)


def positive_seconds(mistakes: Mistakes, path: str, value: Any) -> float | None:
    number = _seconds(value)
    if number is not None and 0 < number < float("inf"):
        return float(number)
    what = 'a positive time: seconds, or text such as "90s" or "5m"'
    mistakes.add(path, f"expected {what}, got {show(value)}{_hint_at_no_limit(value)}")
    return None


def _hint_at_no_limit(value: Any) -> str:
    return '; for no limit, write a long time, such as "365d"' if value == float("inf") else ""


def seconds(mistakes: Mistakes, path: str, value: Any) -> float | None:
    number = _seconds(value)
    if number is not None and 0 <= number < float("inf"):
        return float(number)
    what = 'a time of 0 or more: seconds, or text such as "90s" or "5m"'
    mistakes.add(path, f"expected {what}, got {show(value)}{_hint_at_no_limit(value)}")
    return None


def positive_int(mistakes: Mistakes, path: str, value: Any) -> int | None:
    number = _number(value)
    if number is not None and 1 <= number <= _INTEGER_MAX and number == int(number):
        return int(number)  # Lua's 8192 / 2 is the float 4096.0
    mistakes.expected(path, "a positive integer", value)
    return None


def count(mistakes: Mistakes, path: str, value: Any) -> int | None:
    number = _number(value)
    if number is not None and 0 <= number <= _INTEGER_MAX and number == int(number):
        return int(number)
    mistakes.expected(path, "an integer that is not negative", value)
    return None


def share(mistakes: Mistakes, path: str, value: Any) -> float | None:
    number = _number(value)
    if number is not None and 0 <= number <= 10:
        return float(number)
    mistakes.expected(path, "a share such as 0.1 (0 to 10)", value)
    return None


def size_bytes(mistakes: Mistakes, path: str, value: Any) -> int | None:
    number = _number(value)
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number = float(match[1]) * _SIZE_UNITS[match[2]]
    if number is not None and 1 <= number <= _INTEGER_MAX and number == int(number):
        return int(number)
    mistakes.expected(path, 'a size: bytes, or text such as "100MiB" or "6GiB"', value)
    return None


def string_array(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    found = [text(mistakes, at, v) for at, v in items(mistakes, path, value, "an array of strings")]
    return tuple(v for v in found if v is not None)


def words(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    """An array of strings, or one string of words (as an earlier gateway had it)."""
    if isinstance(value, str):
        return tuple(value.split())
    return string_array(mistakes, path, value)


def variables(mistakes: Mistakes, path: str, value: Any) -> dict[str, str | bool] | None:
    """Variables of an environment: their texts, or whether they are inherited."""
    if not is_table(value):
        mistakes.expected(path, "a table of strings", value)
        return None
    result: dict[str, str | bool] = {}
    for key, raw in value.items():
        # Other names are legal, but /bin/sh, through which engines start, drops them.
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            mistakes.add(path, f"expected names of variables as keys, got {show(key)}")
        elif isinstance(raw, bool):
            result[key] = raw
        elif (checked := text(mistakes, f"{path}.{key}", raw)) is not None:
            result[key] = checked
    return result
