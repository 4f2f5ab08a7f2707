"""The history's file: what is written is found again, whatever happens to the file."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.support.past_requests import NOON_S, past
from trio_gateway.server.history import file as history_file
from trio_gateway.server.history.file import HistoryFile
from trio_gateway.server.history.selection import (
    Place,
    Status,
    StatusCodes,
    Wanted,
    Whether,
    page_of,
    place_of,
)
from trio_gateway.server.history.stored import HistoryUnavailable
from trio_gateway.server.history.usage import By, sums_of
from trio_gateway.server.records.request_record import CANCELLED, Outcome, RequestRecord, Stage
from trio_gateway.server.records.request_row import RequestRow, row_of

ALL = Wanted()
DAY_S = 86400.0
NO_USAGE = {"usage": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "history.sqlite"


@pytest.fixture
def file(path: Path) -> Iterator[HistoryFile]:
    with closing(HistoryFile(path, 30 * DAY_S, lambda: NOON_S)) as opened:
        yield opened


def ids(file: HistoryFile, wanted: Wanted = ALL, limit: int = 100) -> list[int]:
    return [int(one.place.id, 16) for one in file.page(wanted, None, limit)]


def several() -> list[RequestRecord]:
    return [
        past(1, "a", key="anna", client="anna"),
        past(2, "b", error="engine_failed", status=502, **NO_USAGE),
        past(3, None, error="model_not_found", status=404, sent_at=None, asked="x", **NO_USAGE),
        past(4, "a", error=CANCELLED, status=499, **NO_USAGE),
        past(5, "a", key="bert", client="bert", asked="alias"),
    ]


def test_a_row_is_what_the_pages_show(file: HistoryFile) -> None:
    record = past(1)
    file.write([record])
    (stored,) = file.page(ALL, None, 9)
    assert stored.place == place_of(record)
    assert msgspec.json.decode(stored.row, type=RequestRow) == row_of(record, 99.0)


STATUSES: list[Status] = [
    *Outcome, *Stage, *Whether, StatusCodes(502, 502), StatusCodes(400, 499),
]  # fmt: skip


@pytest.mark.parametrize(
    "wanted",
    [
        ALL,
        Wanted(model="a"),
        Wanted(model="alias"),
        Wanted(model="x"),
        Wanted(client="anna"),
        Wanted(key="bert"),
        Wanted(key="nobody"),
        Wanted(since_s=NOON_S + 3),
        Wanted(model="a", client="anna", status=Outcome.OK),
        *(Wanted(status=status) for status in STATUSES),
    ],
    ids=str,
)
def test_it_finds_and_sums_up_what_memory_would(file: HistoryFile, wanted: Wanted) -> None:
    records = several()
    file.write(records)
    for before in (None, place_of(records[2]), Place(NOON_S + 4, "")):
        expected = [place_of(record) for record in page_of(records, wanted, before, 2)]
        assert [stored.place for stored in file.page(wanted, before, 2)] == expected
    for by in By:
        in_memory = sums_of(filter(wanted.has, records), by)
        assert file.sums(wanted, by) == in_memory


def test_a_place_is_found_by_its_id(file: HistoryFile) -> None:
    file.write(several())
    assert file.place_of(f"{1:016x}", ALL) == place_of(past(1))
    assert file.place_of(f"{1:016x}", Wanted(key="anna")) == place_of(past(1))
    assert file.place_of(f"{1:016x}", Wanted(key="bert")) is None
    assert file.place_of("nobody", ALL) is None


def test_it_is_there_after_a_restart(path: Path, file: HistoryFile) -> None:
    file.write([past(1)])
    file.close()
    with closing(HistoryFile(path, DAY_S, lambda: NOON_S)) as again:
        assert ids(again) == [1]


def test_what_is_written_twice_is_there_once(file: HistoryFile) -> None:
    file.write([past(1)])
    file.write([past(1), past(2)])
    assert ids(file) == [2, 1]


def test_nobody_else_can_read_it(path: Path, file: HistoryFile) -> None:
    before = os.umask(0)
    try:
        file.write([past(1)])
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("history.sqlite", "history.sqlite-wal", "history.sqlite-shm"), 0o600
    )
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_theirs_no_more(path: Path, file: HistoryFile) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    file.write([past(1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_too_old_is_removed(path: Path) -> None:
    now_s = NOON_S
    with closing(HistoryFile(path, 2 * DAY_S, lambda: now_s)) as file:
        file.write([past(number) for number in range(5000)])
        assert len(ids(file, limit=9999)) == 5000
        now_s += 2 * DAY_S + 4990.5
        file.write([])
        assert ids(file, limit=9999) == list(range(4999, 4990, -1))


# -- what can be wrong with the file ----------------------------------------------------------


def damage_head(path: Path) -> None:
    path.write_bytes(b"?" * 100 + path.read_bytes()[100:])


def damage_middle(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def damage_all(path: Path) -> None:
    path.write_bytes(b"this is no database, but some text " * 300)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [damage_head, damage_middle, damage_all, cut])
def test_a_damaged_file_is_moved_aside_with_one_line(
    path: Path, file: HistoryFile, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    file.write([past(number) for number in range(100)])
    file.close()
    assert callable(damage)
    damage(path)
    file.write([past(200)])
    assert ids(file) == [200]
    (record,) = caplog.records
    assert "is damaged" in record.message
    assert "\n" not in record.message
    aside = [one for one in path.parent.iterdir() if ".damaged-2026" in one.name]
    assert len(aside) == 1


def test_one_that_is_damaged_while_it_is_open_is_moved_aside(
    path: Path, file: HistoryFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.write([past(number) for number in range(3000)])
    file._with(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    data = path.read_bytes()
    with path.open("r+b") as opened:
        opened.write(b"\xff" * len(data))
    for number in range(3000, 3003):
        file.write([past(number)])
    assert len(ids(file, limit=9999)) < 3000
    file.write([past(4000)])
    assert ids(file)[0] == 4000
    assert len([r for r in caplog.records if "is damaged" in r.message]) == 1


def test_one_that_was_removed_is_made_anew(path: Path, file: HistoryFile) -> None:
    file.write([past(1)])
    path.unlink()
    file.write([past(2)])
    assert ids(file) == [2]
    assert path.exists()


def test_one_of_another_program_is_left_alone(path: Path, file: HistoryFile) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as others:
        others.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(HistoryUnavailable, match="another program"):
        file.write([past(1)])
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_is_not_a_file_is_left_alone(path: Path, file: HistoryFile) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    path.chmod(0o640)
    with pytest.raises(HistoryUnavailable, match="not a file on a disk"):
        file.write([past(1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_one_of_a_newer_version_is_left_alone(path: Path, file: HistoryFile) -> None:
    file.write([past(1)])
    file.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryUnavailable, match=r"newer trio-gateway .*version 99"):
        file.write([past(2)])


def test_an_older_version_is_brought_up_to_date(
    path: Path, file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write([past(1)])
    file.close()
    upgrade = "ALTER TABLE requests ADD COLUMN mood TEXT; UPDATE requests SET mood = 'fine'"
    monkeypatch.setattr(history_file, "UPGRADES", (*history_file.UPGRADES, upgrade))
    assert ids(file) == [1]
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA user_version").fetchone() == (2,)
        assert opened.execute("SELECT mood FROM requests").fetchone() == ("fine",)


def test_an_upgrade_that_fails_changes_nothing(
    path: Path, file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write([past(1)])
    file.close()
    broken = (*history_file.UPGRADES, "UPDATE requests SET model = 'x'; nonsense")
    monkeypatch.setattr(history_file, "UPGRADES", broken)
    with pytest.raises(HistoryUnavailable):
        file.page(ALL, None, 9)
    monkeypatch.undo()
    (stored,) = file.page(Wanted(model="m"), None, 9)
    assert json.loads(bytes(stored.row))["model"] == "m"


def test_a_locked_file_is_told_and_tried_again(
    path: Path, file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "BUSY_S", 0.01)
    file.write([past(1)])
    file.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM requests")
        with pytest.raises(HistoryUnavailable, match="locked"):
            file.write([past(2)])
        other.execute("ROLLBACK")
    file.write([past(2)])
    assert ids(file) == [2, 1]


def test_a_full_disk_is_told_and_tried_again(file: HistoryFile) -> None:
    file.write([past(1)])
    file._with(lambda connection: connection.execute("PRAGMA max_page_count = 6").fetchall())
    with pytest.raises(HistoryUnavailable, match="full"):
        file.write([past(number) for number in range(2, 2000)])
    file.write([past(2)])
    assert ids(file) == [2, 1]


@pytest.mark.parametrize("place", ["/proc/history.sqlite", "/proc/folder/history.sqlite", "/"])
def test_a_folder_where_nothing_can_be_written_is_told(place: str) -> None:
    file = HistoryFile(Path(place), DAY_S)
    for _ in range(2):
        with pytest.raises(HistoryUnavailable):
            file.write([past(1)])


def test_nothing_of_what_was_said_is_in_it(path: Path, file: HistoryFile) -> None:
    file.write([past(1)])
    with closing(sqlite3.connect(path)) as opened:
        columns = [row[1] for row in opened.execute("PRAGMA table_info(requests)")]
    assert not {"prompt", "answer", "messages", "body"} & set(columns)
