"""Finding: something that will not work as it was meant to, and what to do about it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec


class Severity(enum.Enum):
    """ERROR: something cannot run. WARNING: something will not go as it was meant to. NOTE: good to
    know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """`cure`: what to do; empty where the text says it."""

    severity: Severity
    text: str
    cure: str = ""

    @property
    def line(self) -> str:
        return f"{self.text}; {self.cure}" if self.cure else self.text


def error(text: str, cure: str = "") -> Finding:
    return Finding(Severity.ERROR, text, cure)


def warning(text: str, cure: str = "") -> Finding:
    return Finding(Severity.WARNING, text, cure)


def note(text: str, cure: str = "") -> Finding:
    return Finding(Severity.NOTE, text, cure)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Each once, what is worst first."""
    order = [*Severity]
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity))


def exit_code(findings: Sequence[Finding]) -> int:
    """2: with errors; 1: with warnings; 0: with neither."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return 2
    return 1 if Severity.WARNING in severities else 0
