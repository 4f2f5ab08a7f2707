"""What a chat template has room for, as far as its words tell. Pure."""

from __future__ import annotations

import re

_THINKING = ("enable_thinking", "reasoning_effort", "reasoning_content", "<think>")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


def knows_tools(template: str) -> bool:
    return "tools" in _COMMENT.sub("", template)


def knows_thinking(template: str) -> bool:
    program = _COMMENT.sub("", template)
    return any(word in program for word in _THINKING)
