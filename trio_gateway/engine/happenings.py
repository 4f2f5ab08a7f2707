"""What happens to engines, for those who look on: pages, the feed, metrics. Pure."""

from __future__ import annotations

import enum

import msgspec

from trio_gateway.engine.scheduling.events import Cause, VariantKey


class Change(enum.Enum):
    """What an engine did, or what was decided about it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    RESUMED = "resumed"
    STOPPING = "stopping"
    FAILED = "failed"
    GONE = "gone"


class EngineChanged(msgspec.Struct, frozen=True):
    """`engine`: its number, which no other has in this run. `at`: seconds of the monotonic clock.
    `reason`: why, in a few words; empty where it goes without saying. `load_s`: of READY.
    `evicted`: of STARTING, what was stopped to make room for it. `timed_out`: of FAILED. `cause`:
    of DRAINING and STOPPING. `killed`: of GONE, it was asked to end and did not."""

    engine: int
    key: VariantKey
    pool: str
    change: Change
    at: float
    reason: str = ""
    load_s: float | None = None
    evicted: tuple[VariantKey, ...] = ()
    timed_out: bool = False
    cause: Cause | None = None
    killed: bool = False


class MemorySeen(msgspec.Struct, frozen=True):
    """The most that an engine's processes held so far."""

    engine: int
    memory_bytes: int


class Refused(msgspec.Struct, frozen=True):
    """A ticket that got no engine. `refusal`: the name of what kept it out."""

    model: str
    refusal: str
    reason: str


class YieldChanged(msgspec.Struct, frozen=True):
    """Memory is yielded to another program, or is not any more."""


class Reloaded(msgspec.Struct, frozen=True):
    """The configuration is another: models and pools may have changed in all that they are.
    `changed`: variants whose engines are started otherwise now."""

    changed: frozenset[VariantKey] = frozenset()


class ModelKept(msgspec.Struct, frozen=True):
    """It was said how long a model stays loaded."""

    model: str
