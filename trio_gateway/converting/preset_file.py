"""Reads the INI files of llama.cpp's router (`--models-preset`), as it reads them. Pure.

A `;` or a `#` begins a comment wherever it stands, a value in quotes not excepted. A section that
comes twice begins anew. Keys before the first section belong to a section `default`.
"""

from __future__ import annotations

import re

from trio_gateway.converting.description import NotConvertible

DEFAULT, ALL = "default", "*"
_COMMENT = re.compile(r"[ \t]*[;#].*")
_HEADER = re.compile(r"\[[ \t]*([^\]]+?)[ \t]*\]")
_ENTRY = re.compile(r"([a-zA-Z_][a-zA-Z0-9_.-]*)[ \t]*=[ \t]*(.*)")

Sections = dict[str, dict[str, str]]


def read_presets(text: str) -> Sections:
    """Raises NotConvertible: a line that is neither."""
    found: Sections = {}
    section = DEFAULT
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = _COMMENT.sub("", raw).strip(" \t")
        if not line:
            continue
        if match := _HEADER.fullmatch(line):
            section = match[1]
            found[section] = {}
        elif match := _ENTRY.fullmatch(line):
            found.setdefault(section, {})[match[1]] = match[2].rstrip(" \t")
        else:
            raise NotConvertible(f"line {number}: expected [a section], or a key = a value")
    return found


def looks_like_presets(text: str) -> bool:
    """Whether its first line that says something is a section or an entry of one."""
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw).strip()
        if line:
            is_entry = _ENTRY.fullmatch(line) is not None and ":" not in line.partition("=")[0]
            return _HEADER.fullmatch(line) is not None or is_entry
    return False
