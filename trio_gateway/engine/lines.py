"""EngineLines: what engines have printed last, also those that are gone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from trio_gateway.bus import Bus
from trio_gateway.engine.process.plain_line import coloured_line
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.lines import KEPT, EngineLine

GONE_KEPT = 5
_LEVEL = "INFO"  # what engines print has no level that all of them share


class _Kept:
    """Of one engine, as it came: an engine prints ten lines for a request, which may cost no more
    than a microsecond each. They are made into LogLines when somebody asks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pieces: deque[tuple[float, Sequence[bytes]]] = deque()
        self._count = 0

    def add(self, at_s: float, lines: Sequence[bytes]) -> None:
        self._pieces.append((at_s, lines))
        self._count += len(lines)
        while self._count > KEPT and self._count - len(self._pieces[0][1]) >= KEPT:
            self._count -= len(self._pieces.popleft()[1])

    def lines(self) -> list[EngineLine]:
        found = [(at_s, line) for at_s, lines in self._pieces for line in lines]
        return [_line(at_s, self.name, line) for at_s, line in found[-KEPT:]]


class EngineLines:
    """Each engine's from `begin` on; of those that are gone, the last few. Lines are published on
    the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: dict[int, _Kept] = {}  # by engine, the oldest first
        self._gone: deque[int] = deque()
        self._newest: dict[str, _Kept] = {}  # by name: MODEL:VARIANT

    def begin(self, engine: int, key: VariantKey) -> None:
        name = str(key)
        self._kept[engine] = self._newest[name] = _Kept(name)

    def end(self, engine: int) -> None:
        self._gone.append(engine)
        while len(self._gone) > GONE_KEPT:
            kept = self._kept.pop(self._gone.popleft())
            if self._newest[kept.name] is kept:
                del self._newest[kept.name]

    def keep(self, name: str, lines: Sequence[bytes]) -> None:
        """Lines of the newest engine of this name."""
        if (kept := self._newest.get(name)) is None:
            return
        at_s = time.time()
        kept.add(at_s, lines)
        if self._bus.has_listeners(EngineLine):
            for line in lines:
                self._bus.publish(_line(at_s, name, line))

    def last(self, names: Collection[str]) -> Iterator[EngineLine]:
        """The lines of the engines of these names, one engine after the other."""
        for kept in self._kept.values():
            if kept.name in names:
                yield from kept.lines()


def _line(at_s: float, name: str, line: bytes) -> EngineLine:
    return EngineLine(round(at_s, 3), _LEVEL, name, coloured_line(line))
