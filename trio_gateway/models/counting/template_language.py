"""The language of chat templates as llama.cpp speaks it, which is not quite jinja2's.

What is not there is more often nothing than an error; none, undefined and objects are printed as
nothing; numbers look as C++ writes them. A template is a program of a stranger: it runs in jinja2's
sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import ChainableUndefined, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_LARGEST_POWER = 64
_LIST_CHANGES = frozenset({"append", "pop"})  # templates make lists of their own


class Absent(ChainableUndefined):
    """What is not there. It has no members either, and adds nothing to a text."""

    def items(self) -> list[Any]:
        return []

    def lower(self) -> str:
        return ""

    upper = strip = lower


class _Code(CodeGenerator):
    """Compiles `a ~ b` to a call of ours."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """`whole`: is told of each value that is made one text of, and gives what to make it of."""

    code_generator_class = _Code
    intercepted_binops = frozenset({"**", "+"})

    def __init__(self, whole: Callable[[object], object] | None = None) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=Absent,
            finalize=printed,
            extensions=[loopcontrols, _Generation],
        )

        def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
            value = value if whole is None else whole(value)
            return to_json(value, ensure_ascii=ensure_ascii, **options)

        def as_string(value: object) -> str:
            value = value if whole is None else whole(value)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return to_json(value) if is_number else as_text(value)

        self.filters.update(tojson=tojson, string=as_string, default=_default, d=_default)
        self.filters.update(items=_items, safe=_safe)
        self.globals.update(raise_exception=_raise, strftime_now=_strftime_now)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, list) and attr in _LIST_CHANGES:
            return True
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"no template may have {attribute!r}")

    def concatenate(self, values: Iterable[object]) -> str:
        return "".join(map(_added, values))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and abs(right) > _LARGEST_POWER:
            raise SecurityError("a power is too large")
        if operator == "+" and isinstance(left, str) != isinstance(right, str):
            return _added(left) + _added(right)
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks, for training, what a model says: it changes nothing here."""

    tags = {"generation", "endgeneration"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return []


def printed(value: object) -> str:
    """What `{{ value }}` gives."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return "".join(printed(item) for item in list.__iter__(value))
    return as_text(value)


def as_text(value: object) -> str:
    """A value as a string, the way `| string` and `+` make one of it."""
    if isinstance(value, float):
        text = f"{value:f}".rstrip("0")
        return text + "0" if text.endswith(".") else text
    if isinstance(value, int) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_repr(k)}: {_repr(v)}" for k, v in dict.items(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_repr, list.__iter__(value))) + "]"
    return str(value)


def to_json(
    value: object,
    *,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Iterable[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON with the keys in their order; letters are not escaped, and what HTML needs neither.

    Raises:
        TemplateError: keys cannot be sorted.
    """
    if sort_keys:
        raise TemplateError
    between, after_key = [*(separators or ()), "", ""][:2]
    between = between or (", " if indent is None else ",")
    pieces = _json_pieces(value, ensure_ascii, indent, between, after_key or ": ", 0)
    return "".join(pieces)


def _json_pieces(
    value: object, ascii_only: bool, indent: int | None, between: str, after_key: str, depth: int
) -> Iterator[str]:
    line = "" if indent is None else "\n"
    inner = " " * (indent or 0) * (depth + 1)
    end = line + " " * (indent or 0) * depth
    if isinstance(value, Iterator):
        value = list(value)  # what a filter such as `map` gives
    if isinstance(value, dict | list | tuple):
        opens, closes = "{}" if isinstance(value, dict) else "[]"
        yield opens
        pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        is_empty = True
        for key, item in pairs:
            yield line + inner if is_empty else between + line + inner
            is_empty = False
            if isinstance(value, dict):
                yield json.dumps(str(key), ensure_ascii=ascii_only) + after_key
            yield from _json_pieces(item, ascii_only, indent, between, after_key, depth + 1)
        yield closes if is_empty else end + closes
    elif isinstance(value, str):
        yield json.dumps(str(value), ensure_ascii=ascii_only)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int):
        yield _number(value)
    elif isinstance(value, float):
        yield f"{value:g}"
    else:
        yield "null"


def _number(value: int) -> str:
    """As one of 64 bits, which turns negative past its largest; beyond, as one with an exponent."""
    if not -(1 << 63) <= value < 1 << 64:
        return f"{float(value):g}"
    return str(value - (1 << 64) if value >= 1 << 63 else value)


def _repr(value: object) -> str:
    if isinstance(value, str):
        return to_json(value) if "'" in value else f"'{value}'"
    return as_text(value)


def _added(value: object) -> str:
    return "" if value is None or isinstance(value, Absent) else as_text(value)


def _default(value: object, default: object = "", boolean: bool = False) -> object:
    missing = not value if boolean else value is None or isinstance(value, Absent)
    return default if missing else value


def _safe(value: object) -> object:
    """Nothing is escaped here, so nothing need be kept from it."""
    return value


def _items(value: Any) -> list[Any]:
    return [] if value is None or isinstance(value, Absent) else list(value.items())


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(_message: str) -> NoReturn:
    raise TemplateError  # without the message: it may quote the chat
