"""Lines of logs: what one is, and the last of them that are kept. Pure."""

from __future__ import annotations

from collections import deque

import msgspec

KEPT = 2000
GATEWAY = "gateway"
# Each engine's own logger: this and its variant. What the engine prints goes there as DEBUG.
ENGINE_LOGGERS = "trio_gateway.engines."


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """`at_s`: Unix time. `level`: as Python's logging names it. `source`: `gateway`, or the
    MODEL:VARIANT of an engine that has printed it. `text` may have several lines, and colours."""

    at_s: float
    level: str
    source: str
    text: str


class EngineLine(LogLine, frozen=True, gc=False):
    """One that an engine has printed: on the bus, who listens for the gateway's gets none."""


def new_lines() -> deque[LogLine]:
    """Keeps the last ones."""
    return deque(maxlen=KEPT)
