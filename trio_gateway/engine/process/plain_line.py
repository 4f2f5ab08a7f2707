"""A line of an engine's output as text: no progress bars, and colours only where wanted. Pure."""

from __future__ import annotations

import re

# ECMA-48: a sequence with parameters (colours, movements), a string up to its end (titles, links),
# and escapes of two or three characters.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"
    r"|\x1b[ -/]*[0-~]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def coloured_line(line: bytes) -> str:
    """The same with its colours (the sequences `ESC [ … m`), and no other escapes."""
    text = line.decode("utf-8", "replace").rstrip()
    if text.isprintable():
        return text
    text = text.rpartition("\r")[2]
    parts, place = list[str](), 0
    for colour in _COLOUR.finditer(text):
        parts += (_bare(text[place : colour.start()]), colour[0])
        place = colour.end()
    return "".join([*parts, _bare(text[place:])]).rstrip()


def plain_line(line: bytes) -> str:
    """What a terminal would show of it in the end: a carriage return begins the line anew."""
    text = line.decode("utf-8", "replace").rstrip()
    if text.isprintable():
        return text
    text = _ESCAPE.sub("", text).rstrip().rpartition("\r")[2]
    return _CONTROL.sub("", text).rstrip()


def _bare(text: str) -> str:
    return _CONTROL.sub("", _ESCAPE.sub("", text))
