"""Differ: what has changed from one scene to the next, and is worth telling now. Pure.

What happens is told at once. Numbers that run by themselves (tokens, speeds, what is left of a
wait) are told again after a while, so that a thousand streams do not make a thousand events each
time somebody looks; how long something has taken is for whoever shows it to count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from trio_gateway.engine.overview import EngineRow
from trio_gateway.server.feed.rows import EngineGone, Kind, Scene
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.records.request_row import RequestRow

REQUEST_PACE_S = 0.5  # between two rows of the same request, if only numbers have changed
ENGINE_PACE_S = 1.0
NUMBERS_PER_S = 200  # of all requests together

Row = TypeVar("Row", bound=msgspec.Struct)


class Change(NamedTuple):
    """`row`: the event's data."""

    kind: Kind
    row: msgspec.Struct | None


class Differ:
    """`scene`: what has been told so far. A row in it may be older than it was found last."""

    def __init__(self) -> None:
        self.scene = Scene()
        self._told_at: dict[str | int, float] = {}  # of requests and engines

    def kept(self, record: RequestRecord, now: float) -> RequestRow | None:
        """The row that was told of it last, if another one would not be told yet. To make one takes
        20 µs, and there is one for each look and request."""
        row = self.scene.requests.get(record.id)
        if row is None or now - self._told_at[record.id] >= _pace_s(len(self.scene.requests)):
            return None
        return row if _place(row) == _place_of(record) else None

    def changes(self, new: Scene, now: float) -> list[Change]:
        """What is to be told of the new scene, which is the scene from now on."""
        old, told = self.scene, list[Change]()
        engines = dict(new.engines)
        for number, engine in new.engines.items():
            before = old.engines.get(number)
            if before is not None and not self._is_news(
                number, _lasting(before) != _lasting(engine), before != engine, ENGINE_PACE_S, now
            ):
                engines[number] = before
                continue
            self._told_at[number] = now
            told.append(Change(Kind.ENGINE, engine))
        for number in old.engines.keys() - new.engines.keys():
            self._told_at.pop(number, None)
            told.append(Change(Kind.ENGINE_GONE, EngineGone(number)))
        pace_s = _pace_s(len(new.requests))
        requests = dict(new.requests)
        for id_, request in new.requests.items():
            known = old.requests.get(id_)
            if known is request or (
                known is not None
                and not self._is_news(
                    id_, _place(known) != _place(request), not _is_same(known, request), pace_s, now
                )
            ):
                requests[id_] = known
                continue
            self._told_at[id_] = now
            told.append(Change(Kind.REQUEST, request))
        for id_ in old.requests.keys() - new.requests.keys():
            self._told_at.pop(id_, None)  # its end is told by whoever saw it
        told += (Change(Kind.POOL, row) for row in _others(old.pools, new.pools))
        told += (Change(Kind.MODEL, row) for row in _others(old.models, new.models))
        if old.captures != new.captures:
            told.append(Change(Kind.CAPTURES, new.captures))
        self.scene = msgspec.structs.replace(new, engines=engines, requests=requests)
        return told

    def _is_news(
        self, key: str | int, has_happened: bool, is_other: bool, pace_s: float, now: float
    ) -> bool:
        return has_happened or (is_other and now - self._told_at.get(key, now) >= pace_s)


def _lasting(engine: EngineRow) -> tuple[object, ...]:
    """What changes only if something happens."""
    return (
        engine.state, engine.leases, engine.slots, engine.context, engine.pid, engine.port,
        engine.pinned, engine.memory_bytes, [site.state for site in engine.sites],
    )  # fmt: skip


def _place(request: RequestRow) -> tuple[object, ...]:
    """Where it has got to."""
    return (
        request.stage, request.tries, request.engine, request.decision, request.need,
        request.is_streamed, request.priority,
    )  # fmt: skip


def _place_of(record: RequestRecord) -> tuple[object, ...]:
    """What `_place` would say of its row."""
    way, selection = record.way, record.selection
    return (
        record.stage.value, record.tries, way.engine, None if way.how is None else way.how.value,
        None if selection is None else selection.need, record.is_streamed, record.priority.word,
    )  # fmt: skip


def _pace_s(requests: int) -> float:
    return max(REQUEST_PACE_S, requests / NUMBERS_PER_S)


def _is_same(one: RequestRow, other: RequestRow) -> bool:
    return msgspec.structs.replace(one, took_s=other.took_s) == other


def _others(old: Mapping[str, Row], new: Mapping[str, Row]) -> Iterator[Row]:
    return (row for name, row in new.items() if old.get(name) != row)
