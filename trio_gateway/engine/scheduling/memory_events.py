"""The scheduler's vocabulary about memory that other programs have as well: events and actions."""

from __future__ import annotations

import math

import msgspec

# Where an engine is: by place of its pool's memory, the share that it has there.
Places = tuple[tuple[str, float], ...]
WHOLE = ""  # all of a pool's memory, as one place


class Holding(msgspec.Struct, frozen=True):
    """Another program and what it holds. `held_bytes` None: the driver does not say."""

    name: str
    held_bytes: int | None


class PlaceSeen(msgspec.Struct, frozen=True):
    """One place of a pool's memory, as it is now: what it has, what other programs hold of it, and
    who they are, the largest first."""

    place: str
    total_bytes: int
    others_bytes: int
    holders: tuple[Holding, ...] = ()


class MemorySeen(msgspec.Struct, frozen=True):
    """Somebody looked at the memory of a pool. A place that cannot be read is missing."""

    pool: str
    places: tuple[PlaceSeen, ...]


class Yield(msgspec.Struct, frozen=True):
    """Another program is to have so much of a pool's memory, of this device, or of the one with the
    most room. It lasts for `seconds` from when the room is there, or until YieldOver."""

    number: int
    pool: str
    memory_bytes: int
    seconds: float = math.inf
    device: str | None = None


class YieldOver(msgspec.Struct, frozen=True):
    """The room is not needed any more."""

    number: int


class Look(msgspec.Struct, frozen=True):
    """Look at the memory of this pool; a MemorySeen follows."""

    pool: str


class YieldReady(msgspec.Struct, frozen=True):
    """The room is there."""

    number: int


class YieldEnded(msgspec.Struct, frozen=True):
    """Its time is over, or there is no such pool any more."""

    number: int
    reason: str
