"""What Lua says about a program that it cannot run, with a hint at what was likely meant. Pure."""

from __future__ import annotations

import re

from trio_gateway.config.reading.fields import nearest

_LONGEST_LINE = 80  # characters of the program that a message quotes

_SYNTAX = re.compile(r"(?:expected|unexpected symbol|unfinished|malformed|invalid).* near ")
_YAML = re.compile(r"\s*\w+\s*: ")
_TYPOGRAPHIC = re.compile("[\u2018-\u201f]")  # quotes of text processors
_NIL_GLOBAL = re.compile(r"attempt to (index|call) a nil value \(global '(\w+)'\)")
# A line that may have an API key in it: it says so, or is an element of a list of texts.
_ON_KEYS = re.compile(r"key|^\s*[\"']", re.IGNORECASE)
_TEXT = re.compile(r"([\"'])(?:\\.|(?!\1).)*(?:\1|$)")
_NEAR_TEXT = re.compile(r" near '[\"'].*$", re.DOTALL)
_TABLES = ("server", "models", "pools")
# What a configuration may use.
_GLOBALS = (
    "presets", "env", "include", "find_gguf", "discover", "concat_arrays", "merge_tables", "server",
    "models", "pools", "ipairs", "pairs", "tostring", "tonumber", "string", "table", "math",
)  # fmt: skip


def is_syntax_error(message: str) -> bool:
    return _SYNTAX.search(message) is not None


def with_hint(message: str, line: str) -> str:
    """The message, what was likely meant, and for a syntax error the line of the program. Texts in
    a line that may have an API key are not shown: messages end up in bug reports."""
    if not is_syntax_error(message):
        return message + _hint_at_global(message)
    hint = _hint_at_syntax(message, line)
    text = line.strip()
    if _ON_KEYS.search(text):
        text = _TEXT.sub('"…"', text)
        message = _NEAR_TEXT.sub(" near '\"…\"'", message)
    if len(text) > _LONGEST_LINE:
        text = f"{text[: _LONGEST_LINE - 1]}…"
    return message + (f" ({hint})" if hint else "") + (f": {text}" if text else "")


def _hint_at_syntax(message: str, line: str) -> str:
    if _TYPOGRAPHIC.search(line):
        return "Lua's quotes are \" and '"
    near = message.rpartition(" near ")[2].strip("'")
    if near == "<eof>":
        closing = re.search(r"'(\w+|[})\]])' expected", message)
        return f"a missing {closing[1]}?" if closing is not None else "a missing } or end?"
    if "unfinished string" in message:
        return "a missing quote?"
    if near.startswith(("#", "/")):
        return "comments begin with --"
    if near == "[" or line.strip().startswith("["):
        return "arrays are written in braces: { … }"
    if near == ":" or _YAML.match(line):
        return "Lua writes name = value"
    if near == ",":
        return "an extra comma?"
    return "a missing comma?" if "'}' expected" in message else ""


def _hint_at_global(message: str) -> str:
    found = _NIL_GLOBAL.search(message)
    if found is None:
        return ""
    if found[1] == "call" and found[2] in _TABLES:
        return f"; write {found[2]} = {{ … }}"
    return nearest(found[2], _GLOBALS, cutoff=0.75)
