"""Whatever a value is, Lua reads it again; and the text is one that people like to read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lua import lua
from trio_gateway.config.lua.values import Table
from trio_gateway.finding.lua_text import (
    Code,
    Commented,
    LuaValue,
    assignment,
    comment,
    expression,
    key,
    text,
)

HOSTILE = [
    "plain", "", " ", 'say "hi"', "it's", "back\\slash", "C:\\new\\table", "two\nlines", "\r\n",
    "tab\t", "\x00", "\x001", "\x7f", "]]", "--]]", "--[[ x", "${PORT}", "\\n",
    "é ü 漢字 🦙", "\u202egnp.exe", "\u2028", "\ufeff", "%d %s", '" .. env("HOME") .. "',
    "\\z\n   x", "end", "a" * 300,
]  # fmt: skip
TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.booleans() | TEXTS | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def read(value: object) -> object:
    """A table as Python has it: a list, if its keys are 1, 2, 3…"""
    if not isinstance(value, Table):
        return value
    items = [(k, read(v)) for k, v in value.items()]
    if [k for k, _ in items] == [*range(1, len(items) + 1)]:
        return [v for _, v in items]
    return dict(items)


def as_lua_has_it(value: object) -> object:
    """An empty table is neither a list nor a dict to Lua."""
    if isinstance(value, dict):
        return {k: as_lua_has_it(v) for k, v in value.items()} or []
    return [*map(as_lua_has_it, value)] if isinstance(value, list) else value


def test_each_text_is_read_as_it_was_written() -> None:
    assert read(lua(expression(HOSTILE))) == HOSTILE
    assert read(lua(expression({name: name for name in HOSTILE}))) == {n: n for n in HOSTILE}


def test_what_cannot_be_seen_is_not_in_the_file() -> None:
    assert all(c.isprintable() or c == "\n" for c in expression(HOSTILE))


@settings(max_examples=40)
@given(VALUES)
def test_each_value_is_read_as_it_was_written(value: LuaValue) -> None:
    assert read(lua(expression(value))) == as_lua_has_it(value)


def test_a_byte_of_a_file_name_that_is_not_text_stays_that_byte() -> None:
    assert lua(f"#{text(chr(0xDCFF))}") == 1
    assert lua(f"({text(chr(0xDCFF))}):byte()") == 255


@pytest.mark.parametrize("value", [2**63, -(2**63), "\ud800"])
def test_what_lua_cannot_have_is_refused(value: LuaValue) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        expression(value)


@pytest.mark.parametrize("name", ["", "end", "1st", "a b", "server.", "x = 1 --", "ä"])
def test_only_a_name_is_assigned_to(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        assignment(name, 1)


@pytest.mark.parametrize(
    ("name", "written"),
    [("context", "context"), ("top-k", '["top-k"]'), ("end", '["end"]'), ("1", '["1"]')],
)
def test_a_key_is_quoted_only_where_it_has_to_be(name: str, written: str) -> None:
    assert key(name) == written


@pytest.mark.parametrize("words", ["x\nos.exit()", "[[ x ]]", "a\r\nb\rc\u2028d", "\x00\x1b[31m"])
def test_a_comment_stays_one(words: str) -> None:
    assert lua(f"1\n{comment(words)}\n") == 1
    assert all(line.startswith("-- ") for line in comment(words).splitlines())


def test_it_reads_well() -> None:
    model: LuaValue = {
        "name": "qwen3",
        "engine": Code("presets.engines.llamacpp"),
        "aliases": Commented(["q"], beside="what clients ask for now"),
        "variants": Commented(
            [{"binary": "llama-server", "args": ["-c", "8192", "-m", '/srv/it\'s a "model".gguf']}]
            * 2,
            above="The smallest that holds\na request is taken.",
        ),
        "env": {},
    }
    assert (
        assignment("models", [model])
        == r"""models = {
  {
    name = "qwen3",
    engine = presets.engines.llamacpp,
    aliases = { "q" }, -- what clients ask for now
    -- The smallest that holds
    -- a request is taken.
    variants = {
      { binary = "llama-server", args = { "-c", "8192", "-m", "/srv/it's a \"model\".gguf" } },
      { binary = "llama-server", args = { "-c", "8192", "-m", "/srv/it's a \"model\".gguf" } },
    },
    env = {},
  },
}"""
    )
    assert assignment("server.preload", ["a"]) == 'server.preload = { "a" }'
    assert assignment("binary", "x", is_local=True) == 'local binary = "x"'
