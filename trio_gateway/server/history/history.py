"""History: the requests that came, from memory and, if there is one, from the file.

A request's end costs a note in a queue. One task writes what is noted, in a thread, and whoever
asks for a page waits for that thread as well. A disk that is slow, full or read-only costs the
history, with a line in the log, and never a request.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from trio_gateway.bus import Bus
from trio_gateway.server.history.selection import Place, Wanted, page_of, place_of
from trio_gateway.server.history.stored import HistoryUnavailable, StoredRequest
from trio_gateway.server.history.usage import By, Sums, sums_of
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.tasks import run_and_finish

if TYPE_CHECKING:
    from trio_gateway.server.history.file import HistoryFile

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_S = 0.5  # for others to come, before what is noted is written
BATCH_MAX = 1000  # a few ms of the interpreter
WAITING_MAX = 5000  # for a disk that is slow; beyond, new ones are lost
RETRY_S = 5.0  # after an error
IDLE_S = 600.0  # between looks at what is too old, where nothing is written
ASK_S = 5.0  # for the file; then the answer is what memory has
FLUSH_S = 2.0  # at the end, for what is noted


class Found(msgspec.Struct, frozen=True):
    """The newest first. `partial`: why it is not all; empty: it is all."""

    requests: list[RequestRecord | StoredRequest]
    partial: str = ""


class History:
    """`run` in a task, once there is a file.

    Args:
        file: None: what is in memory is all.

    `lost`: requests that the file lacks, in this run.
    """

    def __init__(self, bus: Bus, book: RequestBook, file: HistoryFile | None = None) -> None:
        self._bus, self._book, self._file = bus, book, file
        self._wanted = file  # which takes its place, once what is noted is written
        self._waiting: deque[tuple[RequestRecord, HistoryFile]] = deque()  # and where it goes
        self._news, self._closing = trio.Event(), trio.Event()
        self._thread = trio.CapacityLimiter(1)  # a connection of SQLite is for one at a time
        self._writing = trio.Lock()
        self._fault = ""
        self.lost = 0
        self._lost = 0  # since the last good write

    @property
    def has_file(self) -> bool:
        return self._wanted is not None

    def take_over(self, file: HistoryFile | None) -> None:
        """From now on what is over goes to this one."""
        self._wanted = file
        self._news.set()

    # -- asking -------------------------------------------------------------------------------

    async def page(self, wanted: Wanted, before: Place | None, limit: int) -> Found:
        """Those under way and those that are over, as many as that at most."""
        stored: list[StoredRequest] = []
        fault = ""
        if (file := self._file) is not None:
            try:
                stored = await self._asked(partial(file.page, wanted, before, limit))
            except HistoryUnavailable as error:
                fault = str(error)
        known = page_of([*self._book.live.values(), *self._book.recent], wanted, before, limit)
        return Found(_merged(known, stored, limit), fault)

    async def place_of(self, id_: str, key: str | None) -> Place | None:
        """Of a request with this id and, if there is one, this API key; None: it is not known."""
        wanted = Wanted(key=key)
        for record in (*self._book.live.values(), *self._book.recent):
            if record.id == id_ and wanted.has(record):
                return place_of(record)
        if self._file is None:
            return None
        try:
            return await self._asked(partial(self._file.place_of, id_, wanted))
        except HistoryUnavailable:
            return None

    async def sums(self, wanted: Wanted, by: By) -> tuple[dict[str, Sums], str]:
        """Of those that are over, by name; and why it is not all, if it is not."""
        fault = ""
        if self._file is not None:
            try:
                return await self._asked(partial(self._file.sums, wanted, by)), ""
            except HistoryUnavailable as error:
                fault = str(error)
        return sums_of(filter(wanted.has, self._book.recent), by), fault

    async def _asked(self, question: Callable[[], T]) -> T:
        """The file's answer, with all that is noted in it. Raises HistoryUnavailable."""
        with trio.move_on_after(ASK_S):
            while self._has_more:
                await self._write()
            return await self._in_thread(question)
        raise HistoryUnavailable("the disk is too slow")

    # -- writing ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then what is noted, within a short time."""
        with self._bus.listening(RequestRecord, self._note):
            await run_and_finish(self._write_all, self._close, FLUSH_S, task_status)

    def _close(self) -> None:
        self._closing.set()
        self._news.set()

    def _note(self, record: RequestRecord) -> None:
        """For each request, so it does no more than this."""
        if self._wanted is None:
            return
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append((record, self._wanted))
            self._news.set()
        else:
            self._lost += 1
            self.lost += 1

    async def _write_all(self, until: trio.CancelScope) -> None:
        with until:
            while not self._closing.is_set():
                if self._wanted is not self._file:
                    await self._change_file()
                if self._file is None:
                    self._news = trio.Event()
                    await self._news.wait()
                    continue
                is_good = await self._try_to_write()  # the first time it is opened, and pruned
                with trio.move_on_after(BATCH_S if is_good else RETRY_S):
                    await self._closing.wait()
                is_idle = not self._waiting and self._wanted is self._file
                if is_good and is_idle and not self._closing.is_set():
                    self._news = trio.Event()
                    with trio.move_on_after(IDLE_S):
                        await self._news.wait()
                    with trio.move_on_after(BATCH_S):
                        await self._closing.wait()
            await self._close_file()
        if self._waiting:
            log.error("the history lacks the last %d requests", len(self._waiting))

    async def _change_file(self) -> None:
        wanted, lost = self._wanted, 0
        await self._close_file()
        while self._has_more:
            self._waiting.popleft()
            lost += 1
        if lost:
            self.lost += lost
            log.error("the history lacks the last %d requests", lost)
        self._file, self._fault = wanted, ""
        if wanted is not None:
            log.info("the history is written to %s", wanted.path)

    async def _close_file(self) -> None:
        if self._file is None:
            return
        while self._has_more and await self._try_to_write():
            pass
        await self._in_thread(self._file.close)

    @property
    def _has_more(self) -> bool:
        """Whether something is noted for the file."""
        return bool(self._waiting) and self._waiting[0][1] is self._file

    async def _try_to_write(self) -> bool:
        """Whether it was possible."""
        assert self._file is not None
        try:
            await self._write()
        except HistoryUnavailable as error:
            if not self._fault:  # one line, not one for each request
                log.error("the history cannot be written to %s: %s", self._file.path, error)
            self._fault = str(error)
            return False
        if self._fault:
            lost = f"; {self._lost} requests are lost" if self._lost else ""
            log.warning("the history is written to %s again%s", self._file.path, lost)
        elif self._lost:
            log.error("%d requests are not in the history: the disk is too slow", self._lost)
        self._fault, self._lost = "", 0
        return True

    async def _write(self) -> None:
        """What is noted, up to a batch. Raises HistoryUnavailable."""
        assert self._file is not None
        async with self._writing:
            noted = islice(self._waiting, BATCH_MAX)
            batch = [record for record, file in noted if file is self._file]
            # Cancelled, the thread goes on: then the same is written once more, which is no harm.
            try:
                await self._in_thread(partial(self._file.write, batch))
            except HistoryUnavailable:
                raise
            except Exception as error:
                log.error(
                    "a bug in the gateway; please report it: the history lacks %d requests",
                    len(batch), exc_info=error,
                )  # fmt: skip
                self.lost += len(batch)
            for _ in batch:
                self._waiting.popleft()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Abandoned when the time is up: a disk that hangs holds up no exit and no answer."""
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._thread)


def _merged(
    known: list[RequestRecord], stored: list[StoredRequest], limit: int
) -> list[RequestRecord | StoredRequest]:
    """What memory has is newer."""
    found: dict[Place, RequestRecord | StoredRequest] = {one.place: one for one in stored}
    found |= {place_of(record): record for record in known}
    return [one for _, one in sorted(found.items(), reverse=True)[:limit]]
