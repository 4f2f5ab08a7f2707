"""What another program's configuration says, in this gateway's terms: between its text and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from trio_gateway.finding.lua_text import LuaValue

# A variable of the environment within a text. Other programs put it in when they read the file;
# here it becomes a call of `env`, so that a secret need not be in the file.
VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")

Table: TypeAlias = dict[str, LuaValue]


class NotConvertible(Exception):
    """The file is not what it seems to be; the message says where and why."""


class Remark(msgspec.Struct, frozen=True):
    """Something that is not as it was. `where`: its place in the file. `what`: what became of it,
    and what can be done. Neither has a value of the file that may be a secret."""

    where: str
    what: str


class Description(msgspec.Struct):
    """The tables of a configuration, keys in the order in which they are written.

    `remarks`: what has no counterpart, or was guessed. `program`: whose configuration it was.
    """

    program: str
    server: Table = {}
    models: list[Table] = []
    pools: Table = {}
    choices: Table = {}
    remarks: list[Remark] = []

    def remark(self, where: str, what: str) -> None:
        if (remark := Remark(where, what)) not in self.remarks:
            self.remarks.append(remark)


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """With the variables' values; those that are not set stay as they are."""
    return VARIABLE.sub(lambda found: environment.get(found[1], found[0]), text)
