"""GivingUpLine: engines of a pool in the order in which demands give them up. Pure.

All demands but one see most engines alike: those that close at once come first, then those that are
open no longer than the demand's own window, the cheapest first, then the others as they close. So
the order is kept from demand to demand, and only what its longer wait changes is moved.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, NEVER


class Place(NamedTuple):
    """In the order: when it closes for the demand, and what it costs to lose it."""

    closes_at: float
    cost: float
    number: int
    engine: EngineView


_Cheapest = tuple[float, int, EngineView]


class GivingUpLine:
    """`compared`: gets the engines, by number, among which it was decided by what it costs to lose
    them: time changes that."""

    def __init__(
        self,
        engines: Collection[tuple[EngineView, float]],
        cost: Callable[[EngineView], float],
        compared: dict[int, EngineView],
    ) -> None:
        """Each with what `GivingUp.open_until` says of it."""
        self._cost, self._compared = cost, compared
        self._open_until = {engine.id: open_until for engine, open_until in engines}
        self._at_once: list[_Cheapest] = []
        self._open: list[_Cheapest] = []  # until the demand's window is over
        self._later: list[tuple[float, int, EngineView]] = []  # longer, by when they close
        self._never: list[_Cheapest] = []
        self._contested: dict[int, list[_Cheapest]] = {}
        self._closes_at = AT_ONCE  # for the demand that was looked at last
        for engine, open_until in engines:
            if AT_ONCE < open_until < NEVER:
                self._later.append((open_until, engine.id, engine))
            else:
                ends = self._at_once if open_until == AT_ONCE else self._never
                ends.append((cost(engine), engine.id, engine))
        for entries in (self._at_once, self._later, self._never):
            entries.sort()

    def add(self, engine: EngineView, open_until: float) -> None:
        self._open_until[engine.id] = open_until
        insort(*self._entry(engine, open_until))

    def remove(self, engine: EngineView) -> None:
        entries, entry = self._entry(engine, self._open_until.pop(engine.id))
        if id(entries) in self._contested:
            self._compared[engine.id] = engine
        del entries[bisect_left(entries, entry)]

    def __contains__(self, engine: EngineView) -> bool:
        return engine.id in self._open_until

    def __len__(self) -> int:
        return len(self._open_until)

    def engines(self) -> Iterator[EngineView]:
        for entries in (self._at_once, self._open, self._later, self._never):
            for *_, engine in entries:
                yield engine

    def _entry(
        self, engine: EngineView, open_until: float
    ) -> tuple[list[tuple[float, int, EngineView]], tuple[float, int, EngineView]]:
        if self._closes_at < open_until < NEVER:
            return self._later, (open_until, engine.id, engine)
        entry = self._cost(engine), engine.id, engine
        if open_until == NEVER:
            return self._never, entry
        return (self._at_once if open_until == AT_ONCE else self._open), entry

    def turn_to(self, closes_at: float) -> None:
        """A demand whose own window is over then."""
        if closes_at < self._closes_at:
            self._closes_at = closes_at
            again, self._open = self._open, []
            for *_, engine in again:
                insort(*self._entry(engine, self._open_until[engine.id]))
        self._closes_at = closes_at
        while self._later and self._later[0][0] <= closes_at:
            _, number, engine = self._later.pop(0)
            insort(self._open, (self._cost(engine), number, engine))

    def first(self) -> Place | None:
        return next(self.in_order(), None)

    def in_order(self) -> Iterator[Place]:
        for closes_at, entries in ((AT_ONCE, self._at_once), (self._closes_at, self._open)):
            if len(entries) > 1:
                self._contested[id(entries)] = entries
            for entry in entries:
                yield Place(closes_at, *entry)
        for open_until, together in groupby(self._later, key=itemgetter(0)):
            entries = sorted((self._cost(engine), number, engine) for _, number, engine in together)
            if len(entries) > 1:
                self._compared |= {number: engine for _, number, engine in entries}
            for entry in entries:
                yield Place(open_until, *entry)
        if len(self._never) > 1:
            self._contested[id(self._never)] = self._never
        for entry in self._never:
            yield Place(NEVER, *entry)

    def note_compared(self) -> None:
        """Of those that are left."""
        for entries in self._contested.values():
            self._compared |= {number: engine for _, number, engine in entries}
        self._contested.clear()
