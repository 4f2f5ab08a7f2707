"""EngineLines: what engines have printed last, also those that are gone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable
from itertools import chain

from trio_gateway.bus import Bus
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.lines import LogLine, new_lines

GONE_KEPT = 5


class EngineLines:
    """Each engine's from `begin` on; of those that are gone, the last few. Every line is published
    on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: dict[int, tuple[str, deque[LogLine]]] = {}  # by engine, the oldest first
        self._gone: deque[int] = deque()
        self._newest: dict[str, deque[LogLine]] = {}  # by name: MODEL:VARIANT

    def begin(self, engine: int, key: VariantKey) -> None:
        lines = new_lines()
        self._kept[engine] = (str(key), lines)
        self._newest[str(key)] = lines

    def end(self, engine: int) -> None:
        self._gone.append(engine)
        while len(self._gone) > GONE_KEPT:
            name, lines = self._kept.pop(self._gone.popleft())
            if self._newest[name] is lines:
                del self._newest[name]

    def keep(self, name: str, text: str) -> None:
        """One line of the newest engine of this name."""
        if (lines := self._newest.get(name)) is not None:
            line = LogLine(round(time.time(), 3), "INFO", name, text)
            lines.append(line)
            self._bus.publish(line)

    def last(self, names: Collection[str]) -> Iterable[LogLine]:
        """The lines of the engines of these names, one engine after the other."""
        return chain(*(lines for name, lines in self._kept.values() if name in names))
