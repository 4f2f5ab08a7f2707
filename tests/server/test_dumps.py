"""Dumps: readable files, and no disk that can harm a request."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from trio_gateway.server import dumps as dump_writer
from trio_gateway.server.budget import Budget
from trio_gateway.server.dumps import (
    ANSWER_MAX_BYTES,
    DumpLoss,
    DumpRecord,
    DumpWriter,
    clear_dumps,
    render,
)

REQUEST = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
ANSWER = b'{"choices":[{"message":{"content":"hi there"}}]}'


@asynccontextmanager
async def running(writer: DumpWriter) -> AsyncIterator[DumpWriter]:
    """A writer at work; when the block is left it has written all, or given up."""
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        yield writer
        nursery.cancel_scope.cancel(reason="the test is over")


def record(writer: DumpWriter, *pieces: bytes, number: int = 1, **facts: str) -> DumpRecord:
    """A request that was answered with `pieces`."""
    made = writer.begin(f"{number:016x}", "chat/completions", REQUEST, Budget().hold())
    made.facts.update({name.replace("_", " "): value for name, value in facts.items()})
    for piece in pieces:
        made.continues(piece)
    return made


def dumps(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def writer_in(folder: Path) -> DumpWriter:
    return DumpWriter(folder, Budget(), clear=False)


# -- what is in a file ----------------------------------------------------------------------


async def test_request_and_answer_stand_in_one_readable_file(tmp_path: Path) -> None:
    async with running(writer_in(tmp_path / "new" / "dumps")) as writer:
        record(writer, ANSWER, status="200").finish()
    (file,) = dumps(tmp_path / "new" / "dumps")
    text = file.read_text()
    head, request, answer = text.split("\n===", 2)
    assert "request id: 0000000000000001" in head
    assert "endpoint: chat/completions" in head
    assert "status: 200" in head
    assert '\n      "content": "hello"' in request
    assert '"content": "hi there"' in answer


async def test_a_dump_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    async with running(writer_in(folder)) as writer:
        record(writer, ANSWER).finish()
    (file,) = dumps(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_streamed_answer_is_shown_assembled_and_as_it_came() -> None:
    made = record(
        writer_in(Path("unused")),
        b'data: {"choices":[{"delta":{"content":"hi "}}]}\n\ndata: {"choices":[{"del',
        b'ta":{"content":"there"}}]}\n\ndata: [DONE]\n\n',
        content_type="text/event-stream; charset=utf-8",
    )
    text = render(made)
    assert "=== answer, assembled ===\nhi there\n" in text
    assert 'data: {"choices":[{"delta":{"content":"there"}}]}' in text


@pytest.mark.parametrize(
    "body",
    [b"{not json", b"\xff\xfe\x00", b"", b"[" * 5000 + b"]" * 5000, b'"\\ud800"'],
    ids=["text", "bytes", "empty", "deep", "surrogate"],
)
async def test_bodies_that_are_not_json_are_shown_as_they_are(tmp_path: Path, body: bytes) -> None:
    async with running(writer_in(tmp_path)) as writer:
        made = writer.begin("abc", "completions", body, Budget().hold())
        made.continues(body)
        made.finish()
    (file,) = dumps(tmp_path)
    shown = body.decode("utf-8", "replace")
    assert file.read_bytes().decode().count(shown) >= 2


async def test_events_of_an_unknown_shape_do_not_stop_the_writer(tmp_path: Path) -> None:
    async with running(writer_in(tmp_path)) as writer:
        odd = b'data: {"choices":[null,{"delta":"x"}]}\n\ndata: {"choices":3}\n\n'
        record(writer, odd, content_type="text/event-stream").finish()
        record(writer, ANSWER, number=2).finish()
    assert len(dumps(tmp_path)) == 2


def test_an_answer_over_the_cap_is_kept_up_to_it_without_a_hole() -> None:
    made = record(
        writer_in(Path("unused")), b"a" * (ANSWER_MAX_BYTES - 10), b"b" * 30, b"c" * 5, b""
    )
    assert made.answer == b"a" * (ANSWER_MAX_BYTES - 10) + b"b" * 10
    assert "=== 25 more bytes are left out ===" in render(made)


def test_an_answer_within_the_cap_is_whole() -> None:
    made = record(writer_in(Path("unused")), b"a" * (ANSWER_MAX_BYTES - 1), b"b")
    assert len(made.answer) == ANSWER_MAX_BYTES
    assert "left out" not in render(made)


# -- a disk that does not take it -----------------------------------------------------------


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR]


async def test_a_folder_that_cannot_be_made_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with running(writer_in(tmp_path / "file" / "dumps")) as writer:
        for number in range(5):
            record(writer, ANSWER, number=number).finish()
    at_start, at_write = errors_in(caplog)
    assert "dumps may be lost" in at_start
    assert "cannot be written" in at_write


async def test_a_folder_that_vanished_costs_the_dumps_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "dumps"
    async with running(writer_in(folder)) as writer:
        folder.rmdir()
        for number in range(5):
            record(writer, ANSWER, number=number).finish()
    (line,) = errors_in(caplog)
    assert "No such file" in line


class Disk:
    """Stands in for os.open: the n-th file finds the disk full where `full[n]` says so, and none
    is opened before `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *full: bool) -> None:
        self._full = iter(full)
        self.touched, self.released = threading.Event(), threading.Event()
        self.released.set()
        self._really_open = os.open
        monkeypatch.setattr(os, "open", self.open)

    def open(self, path: Path, flags: int, mode: int) -> int:
        self.touched.set()
        self.released.wait()
        descriptor = self._really_open(path, flags, mode)
        if next(self._full, False):
            os.close(descriptor)
            return self._really_open("/dev/full", os.O_WRONLY)
        return descriptor


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
async def test_a_full_disk_leaves_no_half_dump_and_one_line_each_time_it_gets_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Disk(monkeypatch, True, True, False, True, True)
    async with running(writer_in(tmp_path)) as writer:
        for number in range(5):
            record(writer, ANSWER, number=number).finish()
    (file,) = dumps(tmp_path)
    assert "hi there" in file.read_text()
    assert len(errors_in(caplog)) == 2
    assert all("No space left" in line for line in errors_in(caplog))
    assert (writer.written, writer.lost) == (1, {DumpLoss.DISK_FAILED: 4})


async def test_a_slow_disk_loses_dumps_beyond_a_bound_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(REQUEST) + len(ANSWER)
    monkeypatch.setattr(dump_writer, "PENDING_MAX_BYTES", 2 * size)
    writer = writer_in(tmp_path)
    for number in range(4):
        record(writer, ANSWER, number=number).finish()
    async with running(writer):
        pass
    assert len(dumps(tmp_path)) == 2
    assert [line.split()[4] for line in errors_in(caplog)] == [f"{n:016x}" for n in (2, 3)]
    assert (writer.written, writer.lost) == (2, {DumpLoss.DISK_SLOW: 2})


# -- the end --------------------------------------------------------------------------------


async def test_what_was_finished_before_the_shutdown_is_written(tmp_path: Path) -> None:
    """Also a record that the writer takes in the very moment of its cancel."""
    for number in range(20):
        folder = tmp_path / str(number)
        async with running(writer_in(folder)) as writer:
            await trio.testing.wait_all_tasks_blocked()
            for each in range(3):
                record(writer, ANSWER, number=each).finish()
        assert len(dumps(folder)) == 3


async def test_a_record_after_the_end_is_lost_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(writer_in(tmp_path)) as writer:
        pass
    record(writer, ANSWER).finish()
    (line,) = errors_in(caplog)
    assert "the gateway is stopping" in line
    assert writer.lost == {DumpLoss.STOPPED: 1}


async def test_a_disk_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dump_writer, "_FLUSH_S", 0.05)
    disk = Disk(monkeypatch)
    disk.released.clear()
    with trio.fail_after(10):
        async with running(writer_in(tmp_path)) as writer:
            for number in range(3):
                record(writer, ANSWER, number=number).finish()
            await trio.to_thread.run_sync(disk.touched.wait)
    disk.released.set()
    assert "2 dumps are lost" in errors_in(caplog)[0]


# -- clearing -------------------------------------------------------------------------------


async def test_clearing_removes_our_own_files_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    async with running(writer_in(folder)) as writer:
        for number in range(3):
            record(writer, ANSWER, number=number).finish()
    ours = dumps(folder)
    name = ours[0].name
    strangers = {
        "notes.txt": "mine",
        name.replace("_", "_f"): "a name like ours, another text\n",
        "x" + name: ours[0].read_text(),
        name + ".bak": ours[0].read_text(),
    }
    for stranger, text in strangers.items():
        (folder / stranger).write_text(text)
    (folder / name.replace("_", "_e")).mkdir()
    target = tmp_path / "elsewhere"
    target.write_text(ours[0].read_text())
    (folder / name.replace("_", "_d")).symlink_to(target)

    assert clear_dumps(folder) == 3

    left = {file.name for file in folder.iterdir()}
    assert left == {*strangers, name.replace("_", "_e"), name.replace("_", "_d")}
    assert target.exists()


async def test_old_dumps_are_removed_at_the_start_where_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(writer_in(tmp_path)) as writer:
        record(writer, ANSWER).finish()
    async with running(writer_in(tmp_path)):
        pass
    assert len(dumps(tmp_path)) == 1
    with caplog.at_level(logging.INFO):
        async with running(DumpWriter(tmp_path, Budget(), clear=True)):
            pass
    assert dumps(tmp_path) == []
    assert "removed 1 dumps" in caplog.text


def test_a_record_knows_what_it_keeps_in_memory() -> None:
    made: Any = record(writer_in(Path("unused")), ANSWER)
    assert made.size_bytes == len(REQUEST) + len(ANSWER)
    assert msgspec.json.decode(made.answer) == msgspec.json.decode(ANSWER)
