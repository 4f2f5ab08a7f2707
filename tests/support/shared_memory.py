"""Memory of a simulated world, which other programs take and give back as they like."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    Holding,
    MemorySeen,
    PlaceSeen,
)

TOTAL = 120
RESERVE = 10


@dataclass
class SharedMemory:
    """`yields`: by number, pool, place and bytes. `most`: what was there at most meanwhile."""

    others: dict[tuple[str, str], int] = field(default_factory=dict)  # as it was seen last
    seen_at: dict[str, float] = field(default_factory=dict)
    yields: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    most: dict[tuple[str, str], int] = field(default_factory=dict)

    def places(self, pool: PoolConfig) -> list[str]:
        devices = [device.name for device in pool.devices]
        whole = pool.memory_bytes is not None or (
            pool.memory_auto and not devices and (pool.name, WHOLE) in self.others
        )
        return [WHOLE, *devices] if whole or self._yielded(pool, WHOLE) else devices

    def base(self, pool: PoolConfig, place: str) -> int:
        """Of what nobody can read, one engine has all."""
        capacity = self.capacity(pool, place)
        if capacity is None:
            return 1
        if self._declared(pool, place) is not None:
            return capacity
        return max(capacity - self.others[pool.name, place], 0)

    def capacity(self, pool: PoolConfig, place: str) -> int | None:
        declared = self._declared(pool, place)
        watched = pool.memory_auto if place == WHOLE else True
        is_seen = watched and (pool.name, place) in self.others
        return declared if declared is not None or not is_seen else TOTAL - RESERVE

    def limit(self, pool: PoolConfig, place: str, up_to: float = math.inf) -> int:
        base, yielded = self.base(pool, place), self._yielded(pool, place, up_to)
        if not yielded:
            return base
        return max(min(base, max(self.most.get((pool.name, place), 0), base) - yielded), 0)

    def look(self, pool: PoolConfig, others: int | None, now: float) -> MemorySeen:
        """None: it cannot be read."""
        places = [d.name for d in pool.devices] or [WHOLE]
        for place in [place for of, place in self.others if of == pool.name]:
            del self.others[pool.name, place]
        self.seen_at[pool.name] = now
        if others is None:
            self._note_most(pool)
            return MemorySeen(pool.name, ())
        for number, place in enumerate(places):
            self.others[pool.name, place] = others if number == 0 else others // 3
        self._note_most(pool)
        seen = [
            PlaceSeen(place, TOTAL, self.others[pool.name, place], (Holding("game", None),))
            for place in places
        ]
        return MemorySeen(pool.name, tuple(seen))

    def add_yield(self, number: int, pool: PoolConfig, place: str, size: int) -> None:
        self.yields[number] = pool.name, place, size
        self._note_most(pool)

    def end_yield(self, number: int) -> None:
        pool, place, _ = self.yields.pop(number)
        if all(of[:2] != (pool, place) for of in self.yields.values()):
            self.most.pop((pool, place), None)

    def _note_most(self, pool: PoolConfig) -> None:
        for of, place, _ in self.yields.values():
            if of == pool.name:
                base = self.base(pool, place)
                self.most[of, place] = max(base, self.most.get((of, place), 0))

    def _declared(self, pool: PoolConfig, place: str) -> int | None:
        return pool.memory_bytes if place == WHOLE else pool.declared(place)

    def _yielded(self, pool: PoolConfig, place: str, up_to: float = math.inf) -> int:
        return sum(
            size
            for number, (of, at, size) in self.yields.items()
            if (of, at) == (pool.name, place) and number <= up_to
        )
