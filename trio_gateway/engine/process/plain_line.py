"""A line of an engine's output as text alone: no colours, no progress bars. Pure."""

from __future__ import annotations

import re

# ECMA-48: a sequence with parameters (colours, movements), a string up to its end (titles, links),
# and escapes of two or three characters.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"
    r"|\x1b[ -/]*[0-~]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def plain_line(line: bytes) -> str:
    """What a terminal would show of it in the end: a carriage return begins the line anew."""
    text = line.decode("utf-8", "replace").rstrip()
    if text.isprintable():
        return text
    text = _ESCAPE.sub("", text).rstrip().rpartition("\r")[2]
    return _CONTROL.sub("", text).rstrip()
