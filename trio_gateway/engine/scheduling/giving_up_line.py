"""GivingUpLine: engines of a pool in the order in which demands give them up. Pure.

All demands but one see most engines alike: those that close at once come first, then those that are
open no longer than the demand's own window, the cheapest first, then the others as they close. So
the order is kept from demand to demand, and only what its longer wait changes is moved.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
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
        self, cost: Callable[[EngineView], float], compared: dict[int, EngineView]
    ) -> None:
        self._cost, self._compared = cost, compared
        self._open_until: dict[int, float] = {}
        self._at_once: list[_Cheapest] = []
        self._open: list[_Cheapest] = []  # until the demand's window is over
        self._later: list[tuple[float, int, EngineView]] = []  # longer, by when they close
        self._never: list[_Cheapest] = []
        self._closes_at = AT_ONCE  # for the demand that was looked at last

    def add(self, engine: EngineView, open_until: float) -> None:
        """`open_until` as in `GivingUp.open_until`."""
        self._open_until[engine.id] = open_until
        insort(*self._entry(engine, open_until))

    def remove(self, engine: EngineView) -> None:
        entries, entry = self._entry(engine, self._open_until.pop(engine.id))
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

    @property
    def next_closes_at(self) -> float:
        """When the first one closes."""
        if self._at_once:
            return AT_ONCE
        if self._open:
            return self._closes_at
        if self._later:
            return self._later[0][0]
        return NEVER

    def first(self) -> Place | None:
        return next(self.in_order(), None)

    def in_order(self) -> Iterator[Place]:
        yield from self._places(AT_ONCE, self._at_once)
        yield from self._places(self._closes_at, self._open)
        for open_until, together in groupby(self._later, key=itemgetter(0)):
            entries = sorted((self._cost(engine), number, engine) for _, number, engine in together)
            yield from self._places(open_until, entries)
        yield from self._places(NEVER, self._never)

    def _places(self, closes_at: float, entries: Sequence[_Cheapest]) -> Iterator[Place]:
        if len(entries) > 1:
            self._compared |= {number: engine for _, number, engine in entries}
        for entry in entries:
            yield Place(closes_at, *entry)
