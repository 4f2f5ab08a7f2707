"""What the feed tells besides the rows of engines, pools, models and requests. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.engine.happenings import EngineChanged
from trio_gateway.engine.overview import EngineRow
from trio_gateway.engine.resources import ModelRow, PoolRow
from trio_gateway.lines import LogLine
from trio_gateway.server.records.request_row import RequestRow


class Kind(enum.Enum):
    """The names of the events."""

    SNAPSHOT = "snapshot"
    ENGINE = "engine"
    ENGINE_GONE = "engine_gone"
    REQUEST = "request"
    POOL = "pool"
    MODEL = "model"
    MOMENT = "moment"
    LOG = "log"
    LINES = "lines"
    CAPTURES = "captures"
    BEHIND = "behind"


class Moment(msgspec.Struct, frozen=True):
    """Something that an engine did. `at_s`: Unix time; the rest as in EngineChanged."""

    at_s: float
    engine: int
    model: str
    variant: str
    pool: str
    change: str
    reason: str
    load_s: float | None
    evicted: tuple[str, ...]


class EngineGone(msgspec.Struct, frozen=True):
    engine: int


class Lines(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of logs that a reader follows. `begins`: in place of those that it had."""

    lines: Sequence[LogLine]
    begins: bool = False


class Behind(msgspec.Struct, frozen=True):
    reason: str


class UsableModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a key without an admin's rights is told of a model that it may use."""

    name: str
    state: str
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: ModelRow) -> UsableModel:
        return cls(row.name, row.state, row.choices)


class Captures(msgspec.Struct, frozen=True):
    """What is being recorded: how many more requests of which model, until when (Unix time), and
    what is held of them so far."""

    model: str
    left: int
    until_s: float
    bytes: int


class CapturesChanged(msgspec.Struct, frozen=True):
    """Recording has begun, or ended: for the bus."""


class Scene(msgspec.Struct, frozen=True):
    """All that there is at one moment, by its keys: numbers, ids and names."""

    engines: Mapping[int, EngineRow] = {}
    requests: Mapping[str, RequestRow] = {}
    pools: Mapping[str, PoolRow] = {}
    models: Mapping[str, ModelRow] = {}
    captures: Captures | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`run` tells this run of the gateway. `now_s`: when it was so. `recent`: the last requests
    that are over, the newest last. `timeline`: the last hour's, the oldest first. What stays empty
    is for an admin's key only."""

    run: str
    version: str
    now_s: float
    admin: bool
    pools: tuple[PoolRow, ...] = ()
    engines: tuple[EngineRow, ...] = ()
    requests: tuple[RequestRow, ...]
    recent: tuple[RequestRow, ...]
    timeline: tuple[Moment, ...] = ()
    models: tuple[ModelRow, ...] | tuple[UsableModel, ...]
    held: Mapping[str, int] = {}
    captures: Captures | None = None


def moment_of(change: EngineChanged, at_s: float) -> Moment:
    return Moment(
        at_s=round(at_s, 3),
        engine=change.engine,
        model=change.key.model,
        variant=change.key.variant,
        pool=change.pool,
        change=change.change.value,
        reason=change.reason,
        load_s=None if change.load_s is None else round(change.load_s, 3),
        evicted=tuple(map(str, change.evicted)),
    )
