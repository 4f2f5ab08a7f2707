"""What is told of one scene after the other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_gateway.config.priority import Priority
from trio_gateway.engine.overview import EngineRow
from trio_gateway.engine.resources import PoolRow
from trio_gateway.engine.scheduling.events import How
from trio_gateway.server.feed.differ import REQUEST_PACE_S, Differ
from trio_gateway.server.feed.rows import Captures, EngineGone, Kind, Scene
from trio_gateway.server.records.request_record import RequestRecord, Way
from trio_gateway.server.records.request_row import RequestRow, row_of

POOL = PoolRow("primary", 1, None, 0, None)


def request(id_: str = "1", **fields: Any) -> RequestRow:
    common = {"endpoint": "chat/completions", "arrived_s": 0.0, "stage": "answering"}
    return RequestRow(id=id_, **{**common, **fields})


def engine(number: int = 1, **fields: Any) -> EngineRow:
    common: dict[str, Any] = dict.fromkeys(
        field.name for field in msgspec.structs.fields(EngineRow)
    )
    common |= {"engine": number, "state": "ready", "leases": 0, "next": "stays loaded"}
    return EngineRow(**{**common, "sites": (), **fields})


def scene(*rows: RequestRow | EngineRow, **fields: Any) -> Scene:
    return Scene(
        engines={row.engine: row for row in rows if isinstance(row, EngineRow)},
        requests={row.id: row for row in rows if isinstance(row, RequestRow)},
        **fields,
    )


def told(differ: Differ, new: Scene, now: float) -> list[tuple[Kind, Any]]:
    return [(change.kind, change.row) for change in differ.changes(new, now)]


def test_what_is_new_is_told_and_what_is_the_same_is_not() -> None:
    differ = Differ()
    first = scene(engine(), request(), pools={"primary": POOL})
    kinds = [Kind.ENGINE, Kind.REQUEST, Kind.POOL]
    assert [kind for kind, _ in told(differ, first, 0)] == kinds
    assert told(differ, first, 100) == []


def test_what_has_happened_is_told_at_once() -> None:
    differ = Differ()
    told(differ, scene(engine(), request(stage="waiting")), 0)
    now = scene(engine(leases=1), request(stage="reading"))
    assert told(differ, now, 0.01) == [
        (Kind.ENGINE, now.engines[1]),
        (Kind.REQUEST, now.requests["1"]),
    ]


def test_numbers_are_told_again_after_a_while() -> None:
    differ = Differ()
    told(differ, scene(engine(speed=1.0), request(generated_tokens=1)), 0)
    new = scene(engine(speed=2.0), request(generated_tokens=2))
    assert told(differ, new, 0.25) == []
    newer = scene(engine(speed=3.0), request(generated_tokens=3))
    assert told(differ, newer, 0.5) == [(Kind.REQUEST, newer.requests["1"])]
    assert told(differ, newer, 1.0) == [(Kind.ENGINE, newer.engines[1])]


def test_how_long_it_takes_is_for_others_to_count() -> None:
    differ = Differ()
    told(differ, scene(request(took_s=1.0)), 0)
    assert told(differ, scene(request(took_s=100.0)), 100) == []


def live(**fields: Any) -> RequestRecord:
    """One that its engine has."""
    record = RequestRecord("1", 0.0, 0.0)
    for name, value in {"endpoint": "chat/completions", "sent_at": 0.0, **fields}.items():
        setattr(record, name, value)
    return record


def test_a_row_is_kept_until_another_one_would_be_told() -> None:
    differ, record = Differ(), live()
    row = row_of(record, 0)
    assert differ.kept(record, 0) is None
    told(differ, scene(row), 0)
    soon = REQUEST_PACE_S - 0.01
    assert differ.kept(record, soon) is row
    assert told(differ, scene(row), soon) == []
    assert differ.kept(record, REQUEST_PACE_S) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tries": 1},
        {"way": Way(engine=3)},
        {"way": Way(how=How.SWAPPED)},
        {"is_streamed": True},
        {"priority": Priority.BATCH},
        {"first_byte_at": 0.01},
        {"ended_at": 0.01},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_what_happens_to_a_request_ends_its_row_at_once(fields: dict[str, Any]) -> None:
    differ, after = Differ(), live(**fields)
    told(differ, scene(row_of(live(), 0)), 0)
    assert differ.kept(live(), 0.01) is not None
    assert differ.kept(after, 0.01) is None
    now = scene(row_of(after, 0.01))
    assert told(differ, now, 0.01) == [(Kind.REQUEST, now.requests["1"])]


def test_of_many_requests_each_is_told_of_less_often() -> None:
    differ = Differ()
    many = [request(str(number), generated_tokens=1) for number in range(1000)]
    told(differ, scene(*many), 0)
    more = scene(*(msgspec.structs.replace(row, generated_tokens=2) for row in many))
    assert told(differ, more, 4.9) == []
    assert len(told(differ, more, 5.0)) == 1000


def test_an_engine_that_is_gone_is_told_and_a_request_that_is_over_is_for_others_to_tell() -> None:
    differ = Differ()
    told(differ, scene(engine(), request()), 0)
    assert told(differ, scene(), 1) == [(Kind.ENGINE_GONE, EngineGone(1))]


def test_captures_begin_and_end() -> None:
    differ, captures = Differ(), Captures("m", 1, 0.0, 0)
    assert told(differ, scene(captures=captures), 0) == [(Kind.CAPTURES, captures)]
    assert told(differ, scene(), 1) == [(Kind.CAPTURES, None)]
