"""Which line of an engine's output says why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Time and level of llama.cpp's log, and how a command line's program begins.
_PREFIX = re.compile(r"^(?:[0-9.]+ [A-Z] +|Error: )")
_TROUBLE = re.compile(
    r"\b(?:error|failed|fatal|cannot|could not|unable to|out of memory|no such file|not found|"
    r"invalid)\b",
    re.IGNORECASE,
)
# What only says that it ended. llama.cpp writes its log from a thread of its own, so on a busy
# machine such a line may come before the cause.
_CONSEQUENCE = re.compile(r"Failed to init server|exiting due to")
_PYTHON_ERROR = re.compile(r"[\w.]*(?:Error|Exception)\b")


def telling_line(lines: Sequence[str]) -> str | None:
    """The first line that tells of trouble, as later ones are its consequences; of a Python
    program's traceback the last one. Without a full stop. None if no line tells of any."""
    if any(line.startswith("Traceback ") for line in lines):
        raised = [line for line in lines if _PYTHON_ERROR.match(line)]
        if raised:
            return raised[-1]
    trouble = [line for line in lines if _TROUBLE.search(line)]
    causes = [line for line in trouble if not _CONSEQUENCE.search(line)]
    found = next(iter(causes or trouble), None)
    return None if found is None else _PREFIX.sub("", found).strip().rstrip(".")
