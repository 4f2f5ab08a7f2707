"""PoolMemory: what the pools' memory has room for now, and what others have of it. Decides nothing.

A pool's memory is in *places*: its devices, or one place for all of it. A place's *base* is what
engines may hold there: as configured, or what the device has less what other programs hold and the
reserve. Its *limit* is that less what is yielded. An engine has a share of one place or more; one
of which nothing is known, or that is larger than a place ever is, needs all of its base.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import msgspec

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.events import (
    VariantFacts,
)
from trio_gateway.engine.scheduling.memory_events import (
    WHOLE,
    Holding,
    MemorySeen,
    Places,
    PlaceSeen,
    Yield,
)
from trio_gateway.engine.scheduling.variants import Variants

FRESH_S = 3.0  # a start goes by what was seen no longer ago
EVERYWHERE: Places = ((WHOLE, 1.0),)


class Yielded(msgspec.Struct):
    """Room that is kept free for another program. `until`: its end, once the room is there."""

    asked: Yield
    place: str
    is_ready: bool = False
    until: float = math.inf


class Shortage(msgspec.Struct, frozen=True):
    """A start needs more than there is, were all other engines gone. `needs_bytes` None: all that
    the place has. `holders`: other programs that have some of it, the largest first; of all of
    them, `others_bytes`."""

    place: str
    needs_bytes: int | None
    has_bytes: int
    others_bytes: int
    holders: tuple[Holding, ...]
    yielded_bytes: int


class PoolMemory:
    """`looking`: the pools that somebody was asked to look at. `making_way`: the engines that leave
    for a yield, by their numbers."""

    def __init__(self, variants: Variants, pools: Mapping[str, PoolConfig]) -> None:
        self._variants = variants
        self.pools = dict(pools)
        self.yields: dict[int, Yielded] = {}  # in the order in which they were asked for
        self.looking: set[str] = set()
        self.making_way: set[int] = set()
        self._seen: dict[tuple[str, str], PlaceSeen] = {}
        self._seen_at: dict[str, float] = {}
        self._most: dict[tuple[str, str], int] = {}  # the largest base during yields

    # -- what is seen --------------------------------------------------------------------------

    def note_seen(self, event: MemorySeen, now: float) -> None:
        self.looking.discard(event.pool)
        self._seen_at[event.pool] = now
        kept = {place for pool, place in self._seen if pool == event.pool}
        for place in kept - {seen.place for seen in event.places}:
            del self._seen[event.pool, place]
        for seen in event.places:
            self._seen[event.pool, seen.place] = seen
        for yielded in self.yields.values():
            if yielded.asked.pool == event.pool:
                self._note_most(event.pool, yielded.place)

    def is_fresh(self, pool: str, now: float) -> bool:
        """Whether a start may go by what is known of the pool's memory."""
        if not self.pools[pool].is_watched:
            return True
        seen_at = self._seen_at.get(pool)
        return seen_at is not None and now - seen_at <= FRESH_S

    # -- what there is -------------------------------------------------------------------------

    def places(self, pool: str) -> Sequence[str]:
        """Those where memory is counted."""
        limits = self.pools[pool]
        devices = [device.name for device in limits.devices]
        is_counted = limits.memory_bytes is not None or (limits.memory_auto and not devices)
        if (is_counted and self.base(pool, WHOLE) is not None) or self._is_yielded(pool, WHOLE):
            return [WHOLE, *devices]
        return devices

    def base(self, pool: str, place: str) -> int | None:
        """None: not limited, or not known."""
        limits = self.pools[pool]
        declared = limits.memory_bytes if place == WHOLE else limits.declared(place)
        if declared is not None:
            return declared
        seen = self._seen.get((pool, place))
        if seen is not None and (place != WHOLE or limits.memory_auto):
            free = seen.total_bytes - seen.others_bytes - limits.reserved_of(seen.total_bytes)
            return max(free, 0)
        # Of a device that nobody can read one engine has all; so has a yield of a pool that has
        # no limit.
        return 1 if place != WHOLE or self._is_yielded(pool, WHOLE) else None

    def capacity(self, pool: str, place: str) -> int | None:
        """What the place has at most, when no other program holds anything. None: not known."""
        limits = self.pools[pool]
        declared = limits.memory_bytes if place == WHOLE else limits.declared(place)
        seen = self._seen.get((pool, place))
        if declared is not None or seen is None or (place == WHOLE and not limits.memory_auto):
            return declared
        return max(seen.total_bytes - limits.reserved_of(seen.total_bytes), 0)

    def limit(
        self, pool: str, place: str, *, to_stay: bool = False, up_to: float = math.inf
    ) -> int | None:
        """What engines may hold there. `to_stay`: those that are there already, which need not go
        for the last half of the reserve. `up_to`: yields that came later do not count."""
        base = self.base(pool, place)
        if base is None:
            return None
        yielded = self.yielded(pool, place, up_to=up_to)
        most = max(self._most.get((pool, place), base), base)
        # What is yielded is taken sooner or later, and is seen as other programs' then.
        limit = min(base, most - yielded) if yielded else base
        return limit + self._slack(pool, place) if to_stay else limit

    def yielded(self, pool: str, place: str, *, up_to: float = math.inf) -> int:
        return sum(
            y.asked.memory_bytes
            for number, y in self.yields.items()
            if y.asked.pool == pool and y.place == place and number <= up_to
        )

    def _slack(self, pool: str, place: str) -> int:
        limits, seen = self.pools[pool], self._seen.get((pool, place))
        declared = limits.memory_bytes if place == WHOLE else limits.declared(place)
        if declared is not None or seen is None:
            return 0
        return limits.reserved_of(seen.total_bytes) // 2

    def _is_yielded(self, pool: str, place: str) -> bool:
        return any(y.asked.pool == pool and y.place == place for y in self.yields.values())

    # -- what engines have of it ---------------------------------------------------------------

    def reserved(self, facts: VariantFacts, place: str, share: float = 1.0) -> int:
        """What the place must have for such an engine that has this share of its memory there."""
        if share == 0 or (base := self.base(facts.pool, place)) is None:
            return 0
        known = self._variants.memory_of(facts)
        if known is None:
            return base
        capacity, part = self.capacity(facts.pool, place), math.ceil(known * share)
        return base if capacity is None or part >= capacity else part

    def over(
        self,
        pool: str,
        held: Iterable[tuple[VariantFacts, Places]],
        *,
        to_stay: bool = False,
        up_to: float = math.inf,
    ) -> dict[str, int]:
        """By place, the bytes that these have beyond its limit."""
        found: dict[str, int] = {}
        for place in (each := self.places(pool)):
            limit = self.limit(pool, place, to_stay=to_stay, up_to=up_to)
            found[place] = -max(limit or 0, 0)
        if each:
            for facts, places in held:
                for place in each:
                    found[place] += self.reserved(facts, place, share_of(places, place))
        return found

    def placements(self, facts: VariantFacts) -> Sequence[Places]:
        """Where such an engine may be: on as many devices as it wants, which have it in proportion
        to what they have, as llama.cpp divides it."""
        devices = [device.name for device in self.pools[facts.pool].devices]
        if not devices:
            return (EVERYWHERE,)
        wanted = min(facts.devices, len(devices))
        return [self._divided(facts.pool, some) for some in combinations(devices, wanted)]

    def _divided(self, pool: str, devices: Sequence[str]) -> Places:
        if len(devices) == 1:
            return ((devices[0], 1.0),)
        limits = [max(self.limit(pool, device) or 0, 0) for device in devices]
        total = sum(limits)
        shares = [limit / total if total else 1 / len(devices) for limit in limits]
        return tuple(zip(devices, shares, strict=True))

    def shortage(self, facts: VariantFacts) -> Shortage | None:
        """What such an engine lacks wherever it is placed, however many others leave; None: it has
        room somewhere then."""
        worst: tuple[int, str] | None = None
        for places in self.placements(facts):
            over = self.over(facts.pool, [(facts, places)])
            lack = max(((n, place) for place, n in over.items()), default=(0, ""))
            if lack[0] <= 0:
                return None
            worst = lack if worst is None else min(worst, lack)
        assert worst is not None, "there is a placement"
        return self._short_of(facts, worst[1])

    def _short_of(self, facts: VariantFacts, place: str) -> Shortage:
        seen = self._seen.get((facts.pool, place))
        return Shortage(
            place=place,
            needs_bytes=self._variants.memory_of(facts),
            has_bytes=max(self.limit(facts.pool, place) or 0, 0),
            others_bytes=0 if seen is None else seen.others_bytes,
            holders=() if seen is None else seen.holders,
            yielded_bytes=self.yielded(facts.pool, place),
        )

    def holders(self, pool: str) -> Sequence[PlaceSeen]:
        """What was seen of the pool's places."""
        return [seen for (of, _), seen in self._seen.items() if of == pool]

    # -- yields --------------------------------------------------------------------------------

    def add_yield(self, asked: Yield) -> Yielded:
        yielded = Yielded(asked, self._place_for(asked))
        self.yields[asked.number] = yielded
        self._note_most(asked.pool, yielded.place)
        return yielded

    def end_yield(self, number: int) -> None:
        yielded = self.yields.pop(number, None)
        if yielded is not None and not self._is_yielded(yielded.asked.pool, yielded.place):
            self._most.pop((yielded.asked.pool, yielded.place), None)

    def _note_most(self, pool: str, place: str) -> None:
        base = self.base(pool, place)
        if base is not None:
            self._most[pool, place] = max(base, self._most.get((pool, place), 0))

    def _place_for(self, asked: Yield) -> str:
        """The device that was named, or the one with the most room of those that have so much."""
        devices = [device.name for device in self.pools[asked.pool].devices]
        if asked.device is not None or not devices:
            return asked.device or WHOLE
        return max(devices, key=lambda device: self.limit(asked.pool, device) or 0)


def share_of(places: Places, place: str) -> float:
    """Of an engine's memory that is in the place. All of it is in the pool's, as a whole; one whose
    devices are not known may have all of it on any."""
    shares = dict(places)
    return 1.0 if place == WHOLE or WHOLE in shares else shares.get(place, 0.0)
