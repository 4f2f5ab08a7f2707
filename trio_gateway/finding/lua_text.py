"""Values as Lua text: what a program writes into a configuration, for people to read. Pure.

Whatever a text has in it, Lua reads the same text again: a quote, a line break or a `]]` in the
name of a file never becomes a part of the program.

    >>> print(assignment("server", {"listen_v4": "127.0.0.1:7777", "queue_limit": 8}))
    server = { listen_v4 = "127.0.0.1:7777", queue_limit = 8 }
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

WIDTH = 100  # columns; a table that fits is on one line
_INDENT = "  "
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = frozenset(
    {
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if",
        "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
    }
)  # fmt: skip
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Code:
    """An expression that is written as it is, such as `presets.engines.llamacpp`."""

    text: str


@dataclass(frozen=True)
class Commented:
    """A value of a table, with a comment in lines `above` it, or `beside` it, in its line."""

    value: LuaValue
    above: str = ""
    beside: str = ""


LuaValue: TypeAlias = (
    "bool | int | float | str | Code | Commented | Mapping[str, LuaValue] | Sequence[LuaValue]"
)


def assignment(name: str, value: LuaValue, *, is_local: bool = False) -> str:
    """`NAME = VALUE`. Raises ValueError: as `expression`; or the name is not one, nor a path of
    them, such as `server.preload`."""
    if not all(map(_is_name, name.split("."))):
        raise ValueError(f"not a name: {name!r}")
    start = f"local {name} = " if is_local else f"{name} = "
    return start + expression(value, len(start))


def expression(value: LuaValue, column: int = 0, depth: int = 0) -> str:
    """The value, whose first line begins at `column`, inside of `depth` tables.

    Raises:
        ValueError: a number or a text that Lua cannot have.
    """
    match value:
        case Commented():
            return expression(value.value, column, depth)
        case Code():
            return value.text
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number(value)
        case str():
            return text(value)
    fields = [*_fields(value)]
    line = "{ " + ", ".join(key + expression(item) for key, item in fields) + " }"
    has_comments = any(_has_comment(item) for _, item in fields)
    if not fields:
        return "{}"
    if not has_comments and "\n" not in line and column + len(line) < WIDTH:
        return line
    inner = _INDENT * (depth + 1)
    lines = ["{"]
    for key, item in fields:
        if isinstance(item, Commented) and item.above:
            lines.append(comment(item.above, inner))
        written = expression(item, len(inner) + len(key), depth + 1)
        beside = item.beside if isinstance(item, Commented) else ""
        lines.append(f"{inner}{key}{written}," + (f" {comment(beside)}" if beside else ""))
    return "\n".join([*lines, _INDENT * depth + "}"])


def text(value: str) -> str:
    """A string, quoted, on one line. What cannot be seen in it is escaped.

    A byte that Python read from a file's name as a lone surrogate is written as that byte.

    Raises:
        ValueError: another lone surrogate, which has no bytes.
    """
    return '"' + "".join(map(_character, value)) + '"'


def key(name: str) -> str:
    """A key of a table: `name`, or `["another name"]`."""
    return name if _is_name(name) else f"[{text(name)}]"


def comment(words: str, indent: str = "") -> str:
    """The words as lines of comments; never anything but comments, whatever is in them."""
    lines = re.split(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", words.strip())
    return "\n".join(f"{indent}-- {_visible(line)}".rstrip() for line in lines)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def _fields(value: Mapping[str, LuaValue] | Sequence[LuaValue]) -> Iterator[tuple[str, LuaValue]]:
    if isinstance(value, Mapping):
        yield from ((f"{key(name)} = ", item) for name, item in value.items())
    else:
        yield from (("", item) for item in value)


def _has_comment(value: LuaValue) -> bool:
    return isinstance(value, Commented) and bool(value.above or value.beside)


def _number(value: float) -> str:
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ValueError(f"{value} is not an integer of Lua")
        return str(value)
    if not math.isfinite(value):
        return "0/0" if math.isnan(value) else ("math.huge" if value > 0 else "-math.huge")
    return repr(value)


def _character(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code < 0x20 or code == 0x7F:
        return f"\\{code:03}"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02X}"
    if 0xD800 <= code <= 0xDFFF:
        raise ValueError("a text that is not UTF-8")
    return f"\\u{{{code:X}}}"


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)
