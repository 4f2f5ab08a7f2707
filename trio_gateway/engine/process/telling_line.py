"""Which line of an engine's output says why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PREFIX = re.compile(r"[0-9.]+ [A-Z] +")  # time and level of llama.cpp's log
_TROUBLE = re.compile(
    r"\b(?:error|failed|fatal|cannot|could not|unable to|out of memory|no such file|not found|"
    r"invalid)\b",
    re.IGNORECASE,
)
_PYTHON_ERROR = re.compile(r"[\w.]*(?:Error|Exception)\b")


def telling_line(lines: Sequence[str]) -> str | None:
    """The first line that tells of trouble, as later ones are its consequences; of a Python
    program's traceback the last one. None if no line tells of any."""
    if any(line.startswith("Traceback ") for line in lines):
        raised = [line for line in lines if _PYTHON_ERROR.match(line)]
        if raised:
            return raised[-1]
    found = next((line for line in lines if _TROUBLE.search(line)), None)
    return None if found is None else _PREFIX.sub("", found, count=1).strip()
