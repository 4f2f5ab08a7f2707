"""The history's task: batches, what a bad disk costs, and what is written at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.past_requests import past
from trio_gateway.bus import Bus
from trio_gateway.server.api.endpoints import CHAT
from trio_gateway.server.history import history as history_module
from trio_gateway.server.history.file import HistoryFile
from trio_gateway.server.history.history import History
from trio_gateway.server.history.selection import Wanted, place_of
from trio_gateway.server.history.stored import HistoryUnavailable
from trio_gateway.server.history.usage import By
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import RequestRecord

ALL = Wanted()
KEEP_S = 365 * 86400.0


class Disk(HistoryFile):
    """A real file, which can be slow and bad. `batches`: when, and how many."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, KEEP_S)
        self.batches: list[tuple[float, int]] = []
        self.fault = ""
        self.takes_s = 0.0
        self.tries = 0

    def write(self, records: list[RequestRecord]) -> None:  # type: ignore[override]
        self.tries += 1
        time.sleep(self.takes_s)
        if self.fault:
            raise HistoryUnavailable(self.fault)
        super().write(records)
        if records:
            self.batches.append((time.monotonic(), len(records)))


class Place:
    def __init__(self, path: Path, kept: int = 10) -> None:
        self.bus = Bus()
        self.book = RequestBook(self.bus, kept)
        self.disk = Disk(path)
        self.history = History(self.bus, self.book, self.disk)
        self.number = 0

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            record = past(self.number)
            self.book.begin(record, CHAT, None, lambda: None)
            self.book.end(record)

    def written(self) -> list[int]:
        with closing(HistoryFile(self.disk.path, KEEP_S)) as file:
            return [int(one.place.id, 16) for one in file.page(ALL, None, 9999)]

    async def shown(self, limit: int = 100) -> tuple[list[int], str]:
        found = await self.history.page(ALL, None, limit)
        places = (
            place_of(one) if isinstance(one, RequestRecord) else one.place for one in found.requests
        )
        return [int(place.id, 16) for place in places], found.partial


async def until(condition: Callable[[], object]) -> None:
    """What a thread does is no event."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@asynccontextmanager
async def running(tmp_path: Path, kept: int = 10) -> AsyncIterator[Place]:
    place = Place(tmp_path / "history.sqlite", kept)
    async with trio.open_nursery() as nursery:
        await nursery.start(place.history.run)
        yield place
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_batches_are_no_older_than_a_second(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await until(lambda: place.disk.tries)
        begun = time.monotonic()
        for _ in range(8):
            place.end(50)
            await trio.sleep(0.1)
        await trio.sleep(0.8)
        assert sum(count for _, count in place.disk.batches) == 400
        assert len(place.disk.batches) <= 4
        assert place.disk.batches[0][0] - begun < 0.9
        assert place.written() == list(range(400, 0, -1))


async def test_what_is_noted_at_the_end_is_written(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.end(2500)
    assert place.written() == list(range(2500, 0, -1))


async def test_a_page_has_all_that_is_over_and_older_ones_from_the_file(tmp_path: Path) -> None:
    async with running(tmp_path, kept=3) as place:
        place.end(20)
        assert await place.shown() == (list(range(20, 0, -1)), "")
        assert await place.shown(5) == ([20, 19, 18, 17, 16], "")
        sums, fault = await place.history.sums(ALL, By.MODEL)
        assert (sums["m"].requests, sums["m"].prompt_tokens, fault) == (20, 180, "")
        assert await place.history.place_of(f"{1:016x}", None) == place_of(past(1))


async def test_a_bad_disk_costs_one_line_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "RETRY_S", 0.02)
    async with running(tmp_path) as place:
        place.disk.fault = "no space left"
        tries = place.disk.tries
        while place.disk.tries < tries + 5:
            place.end()
            await trio.sleep(0.01)
        (record,) = caplog.records
        assert record.message.endswith("history.sqlite: no space left")
        shown, partial = await place.shown()
        assert shown == list(range(place.number, max(place.number - 10, 0), -1))
        assert partial == "no space left"
        place.disk.fault = ""
        await until(lambda: place.disk.batches)
        await until(lambda: caplog.records[1:])
        assert [r.message for r in caplog.records[1:]] == [
            f"the history is written to {place.disk.path} again"
        ]
    assert place.written() == list(range(place.number, 0, -1))


async def test_a_disk_that_hangs_costs_history_and_no_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "WAITING_MAX", 100)
    monkeypatch.setattr(history_module, "ASK_S", 0.05)
    async with running(tmp_path) as place:
        await until(lambda: place.disk.tries)
        place.disk.takes_s = 0.5
        begun = time.perf_counter()
        place.end(1000)
        assert time.perf_counter() - begun < 0.25  # it waits for nothing
        assert len(place.history._waiting) == 100
        shown, partial = await place.shown()
        assert (shown, partial) == (list(range(1000, 990, -1)), "the disk is too slow")
        place.disk.takes_s = 0.0
        await until(lambda: caplog.records)
        assert caplog.records[0].message == (
            "900 requests are not in the history: the disk is too slow"
        )
        assert place.history.lost == 900
    assert place.written() == list(range(100, 0, -1))


async def test_a_disk_that_hangs_holds_up_no_exit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FLUSH_S", 0.05)
    async with running(tmp_path) as place:
        await until(lambda: place.disk.tries)
        place.disk.takes_s = 2.0
        place.end(3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.8
    assert caplog.records[-1].message == "the history lacks the last 3 requests"
    await until(lambda: not place.history._thread.borrowed_tokens)  # its thread goes on
    place.disk.close()


async def test_a_request_s_end_costs_next_to_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        record = past(1)
        begun = time.process_time()
        for _ in range(4000):
            place.history._note(record)
        assert (time.process_time() - begun) / 4000 < 5e-6
        place.history._waiting.clear()
