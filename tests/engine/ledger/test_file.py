"""The ledger's file: what is there, whatever it is, costs a line in the log at most."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_gateway.engine.ledger import file as ledger_file
from trio_gateway.engine.ledger.entry import Entry
from trio_gateway.engine.ledger.file import (
    ENTRIES_MAX,
    SIZE_MAX,
    LedgerFile,
    LedgerUnavailable,
    own_ledger,
)

ENTRY = Entry(at=1000.0, name="m:4096", load_s=3.5, memory_bytes=2**30)


@pytest.fixture
def subject(tmp_path: Path) -> LedgerFile:
    return LedgerFile(tmp_path / "state" / "ledger.json")


def put(subject: LedgerFile, **entries: Entry) -> None:
    subject.update(lambda _: entries)


def test_what_was_written_is_read_and_is_for_nobody_else(subject: LedgerFile) -> None:
    assert subject.read() == {}
    put(subject, a=ENTRY)
    assert subject.read() == {"a": ENTRY}
    assert stat.S_IMODE(subject.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(subject.path.parent.stat().st_mode) == 0o700
    names = {path.name for path in subject.path.parent.iterdir()}
    assert names == {"ledger.json", "ledger.json.lock"}


def test_two_gateways_keep_each_others_entries(subject: LedgerFile) -> None:
    other = LedgerFile(subject.path)
    writers = [
        threading.Thread(target=put, args=(who,), kwargs={f"{name}{i}": ENTRY})
        for i in range(10)
        for who, name in ((subject, "a"), (other, "b"))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(subject.read()) == 20


def damage(text: str | bytes) -> Callable[[Path], None]:

    def write(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


NEWER = json.dumps({"version": 2, "entries": [], "more": True})
UNUSABLE: dict[str, Callable[[Path], None]] = {
    "empty": damage(""),
    "half": damage('{"version": 1, "entries": {"a": {"at"'),
    "no JSON": damage(b"\xff\xfe\x00"),
    "a list": damage("[]"),
    "no version": damage('{"entries": {}}'),
    "version 0": damage('{"version": 0, "entries": {}}'),
    "no entries": damage('{"version": 1}'),
    "deep": damage("[" * 100_000),
    "huge": damage(b" " * (SIZE_MAX + 1)),
    "newer": damage(NEWER),
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_is_none_of_ours_is_kept_aside_with_one_line(
    subject: LedgerFile, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    subject.path.parent.mkdir()
    UNUSABLE[what](subject.path)
    assert subject.read() == {}  # as for `explain`, which changes nothing
    assert not caplog.records
    assert subject.open() == {}
    put(subject, a=ENTRY)
    assert subject.open() == {"a": ENTRY}
    assert len(caplog.records) == 1
    aside = subject.path.with_name("ledger.json." + ("v2" if what == "newer" else "damaged"))
    assert aside.exists()
    if what == "newer":
        assert aside.read_text() == NEWER


def test_an_entry_that_nobody_can_have_measured_is_left_out(subject: LedgerFile) -> None:
    wrong = [
        {"at": 1, "load_s": -1},
        {"at": 1, "load_s": "3"},
        {"at": 1, "memory_bytes": 2**70},
        {"at": 1, "speed": 0},
        {"name": "no time"},
        [],
        None,
    ]
    good = {"at": 1, "load_s": 2.0, "of_later": 1}
    entries = {"good": good} | {str(i): w for i, w in enumerate(wrong)}
    subject.path.parent.mkdir()
    subject.path.write_text(json.dumps({"version": 1, "entries": entries}))
    assert subject.open() == {"good": Entry(at=1.0, load_s=2.0)}


def test_only_the_newest_stay(subject: LedgerFile) -> None:
    many = {str(i): Entry(at=float(i)) for i in range(ENTRIES_MAX + 50)}
    subject.update(lambda _: many)
    assert min(entry.at for entry in subject.read().values()) == 50.0
    assert len(subject.read()) == ENTRIES_MAX
    assert subject.path.stat().st_size < SIZE_MAX / 10


def test_what_a_crash_left_is_in_nobodys_way(subject: LedgerFile, tmp_path: Path) -> None:
    subject.path.parent.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    subject.path.with_name("ledger.json.new").symlink_to(precious)
    put(subject, a=ENTRY)
    assert (subject.read(), precious.read_text()) == ({"a": ENTRY}, "mine")


def test_a_full_disk_leaves_what_was_there(
    subject: LedgerFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(subject, a=ENTRY)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerUnavailable, match="No space left"):
        put(subject, b=ENTRY)
    assert subject.read() == {"a": ENTRY}
    assert not subject.path.with_name("ledger.json.new").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    subject = LedgerFile(tmp_path / "file" / "ledger.json")
    with pytest.raises(LedgerUnavailable, match="Not a directory"):
        subject.open()
    with pytest.raises(LedgerUnavailable):
        put(subject, a=ENTRY)


def test_a_lock_that_somebody_holds_for_long(
    subject: LedgerFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(ledger_file, "LOCK_S", 0.05)
    put(subject, a=ENTRY)
    with subject.path.with_name("ledger.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LedgerUnavailable, match="another gateway holds its lock"):
            put(subject, b=ENTRY)
    assert subject.read() == {"a": ENTRY}


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = own_ledger()
    assert found is not None
    assert found.path.name == "ledger.json"
