"""What other programs do to the memory of a scheduler's world."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.scheduler_promises import Promises
from tests.support.shared_memory import RESERVE
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.engine.scheduling.memory_events import WHOLE, Yield, YieldOver


def divided(name: str, *, engines: int = 3, declared: int | None = None) -> PoolConfig:
    """A pool of two devices."""
    devices = PoolDevice("cuda:0", declared), PoolDevice("cuda:1", declared)
    return PoolConfig(name, engines, devices=devices, reserve=RESERVE)


@dataclass
class MemoryWorld(Promises):
    next_yield: int = 1

    def look_comes(self, choice: int, others: int | None) -> None:
        if self.looks:
            self._is_seen(self.looks.pop(choice % len(self.looks)), others)

    def memory_is_seen(self, name: str, others: int | None) -> None:
        if name in self.pools and self.pools[name].is_watched:
            if name in self.looks:
                self.looks.remove(name)
            self._is_seen(name, others)

    def _is_seen(self, name: str, others: int | None) -> None:
        pool = self.pools[name]
        before = {number for number, e in self.live.items() if e.usable}
        self.take_in(self.memory.look(pool, others, self.now))
        for place in self.memory.places(pool):
            if self.memory.capacity(pool, place) is None or (
                pool.memory_bytes is not None or pool.declared(place) is not None
            ):
                continue
            here = [e for e in self.live.values() if e.facts.pool == name and e.usable]
            held = sum(self._reserved(e.facts, e.places, place) for e in here)
            if held > self.memory.limit(pool, place) + RESERVE // 2:
                idle = [
                    e
                    for number, e in self.live.items()
                    if number in before and e in here and not e.leases
                    and self._reserved(e.facts, e.places, place)
                ]  # fmt: skip
                assert not idle, "others hold what idle engines have"

    def is_yielded(self, name: str, size: int, seconds: float) -> None:
        number, self.next_yield = self.next_yield, self.next_yield + 1
        pool = self.pools[name]
        devices = [device.name for device in pool.devices]
        place = devices[size % len(devices)] if devices else WHOLE
        self.memory.add_yield(number, pool, place, size)
        self.take_in(Yield(number, name, size, seconds, place or None))

    def yield_ends(self, choice: int) -> None:
        if self.memory.yields:
            number = sorted(self.memory.yields)[choice % len(self.memory.yields)]
            self.memory.end_yield(number)
            self.take_in(YieldOver(number))
