"""Feed: what the gateway is doing, as events for those who look on.

One task, which sleeps while there is nobody. It wakes on the bus, looks at most four times a
second, and only while something is under way or has happened; so nothing of this is on a request's
way. Between two looks it only notes what it is told.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from secrets import token_hex

import msgspec
import trio

from trio_gateway.bus import Bus
from trio_gateway.engine.happenings import EngineChanged, ModelKept, Reloaded, YieldChanged
from trio_gateway.engine.others import Others
from trio_gateway.engine.resources import ModelRow
from trio_gateway.lines import LogLine
from trio_gateway.server.feed.composer import Composer
from trio_gateway.server.feed.differ import Differ
from trio_gateway.server.feed.ring import Entry, Ring
from trio_gateway.server.feed.rows import CapturesChanged, Kind, Moment, UsableModel, moment_of
from trio_gateway.server.feed.view import View
from trio_gateway.server.records.request_book import RequestBegan, RequestBook
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.records.request_row import RequestRow, row_of
from trio_gateway.tasks import beside
from trio_gateway.wall_clock import WallClock

log = logging.getLogger(__name__)

LOOK_S = 0.25  # between two looks at least
SHARE = 20  # and so many times what the last one took: it costs a twentieth of a processor at most
PAUSE_MAX_S = 1.0  # but no more: a garbage collection in a look would blind its readers for long
SLOW_S = 5.0  # between looks at what changes by itself, where nothing happens
LINGER_S = 30.0  # a reader that comes back within this goes on where it was
TIMELINE_MAX = 2000
NOTED_MAX = 1000  # of each kind between two looks
SHARED_S = 0.1  # a snapshot is the same for who comes within this
_PLAIN_LEVELS = ("DEBUG", "INFO")


class Feed:
    """`run` in a task; `reading` while there is a reader. `ring` has the events; `told` is set, and
    another one takes its place, when there are more in it. `is_awake`: it has all that happens.
    `behind`: how often a reader was too slow and began anew; `missed`: the events that such readers
    did not get, and those that were never made, as too much happened between two looks."""

    def __init__(
        self, bus: Bus, book: RequestBook, composer: Composer, others: Others | None = None
    ) -> None:
        self._bus, self._book, self.composer = bus, book, composer
        self._others = others
        self.run_id = token_hex(4)
        self.ring = Ring()
        self.told = trio.Event()
        self.is_awake = False
        self.behind = self.missed = 0
        self._wall = WallClock()
        self._differ = Differ()
        self._readers, self._left_at = 0, 0.0
        self._news = trio.Event()
        self._timeline: deque[Moment] = deque(maxlen=TIMELINE_MAX)
        self._moments: deque[Moment] = deque(maxlen=NOTED_MAX)
        self._over: deque[RequestRecord] = deque(maxlen=NOTED_MAX)
        self._lines: deque[LogLine] = deque(maxlen=NOTED_MAX)
        self._snapshots: dict[View, tuple[float, bytes]] = {}
        self._looked_far_at = 0.0
        self._has_failed = False  # the log has the first time

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What engines do is noted all the time, as it is rare."""
        with self._bus.listening(EngineChanged, self._note_change):
            task_status.started()
            while True:
                if self._readers:
                    await self._tell()
                await self._news.wait()
                self._news = trio.Event()
                self._timeline.extend(self._moments)
                self._moments.clear()

    async def _tell(self) -> None:
        """Until nobody has read for a while."""
        async with AsyncExitStack() as stack:
            if self._others is not None:
                watch = partial(self._others.watch, self._note_others)
                await stack.enter_async_context(beside(watch))
            for kind in (RequestBegan, ModelKept, Reloaded, YieldChanged, CapturesChanged):
                stack.enter_context(self._bus.listening(kind, self.wake))
            stack.enter_context(self._bus.listening(LogLine, self._note_line))
            stack.enter_context(self._bus.listening(RequestRecord, self._note_end))
            while self._readers or trio.current_time() < self._left_at + LINGER_S:
                is_news, self._news = self._news.is_set(), trio.Event()
                try:
                    took_s = self._look(is_news=is_news)
                except Exception as error:  # noqa: BLE001 - who looks on must not end what works
                    self._fail(error)
                    took_s = SLOW_S / SHARE
                await trio.sleep(min(max(LOOK_S, took_s * SHARE), PAUSE_MAX_S))
                if not self._book.live:
                    with trio.move_on_after(SLOW_S):
                        await self._news.wait()
            # At once, so that whoever comes from here on wakes it again.
            self.is_awake = False
            self.ring.clear()
            self._differ = Differ()
            self._over.clear()
            self._lines.clear()
            self._snapshots.clear()

    def _fail(self, error: Exception) -> None:
        """What was noted is given up, and all readers begin anew."""
        if not self._has_failed:
            log.error("a bug in the gateway; please report it: the feed", exc_info=error)
        self._has_failed = True
        for noted in (self._lines, self._moments, self._over, self._snapshots):
            noted.clear()
        self.ring.clear()
        self._differ = Differ()

    # -- on the bus: notes, and no more -------------------------------------------------------

    def _note_change(self, change: EngineChanged) -> None:
        self._moments.append(moment_of(change, self._wall.unix(change.at)))
        self._news.set()

    def _note_end(self, record: RequestRecord) -> None:
        self.missed += len(self._over) == NOTED_MAX
        self._over.append(record)
        self._news.set()

    def _note_line(self, line: LogLine) -> None:
        if line.level not in _PLAIN_LEVELS:
            self.missed += len(self._lines) == NOTED_MAX
            self._lines.append(line)
            self._news.set()

    def _note_others(self, others: Mapping[str, int | None]) -> None:
        self.composer.others = others
        self._news.set()

    def wake(self, _: object = None) -> None:
        """Something has changed of what it shows."""
        self._news.set()

    # -- looking ------------------------------------------------------------------------------

    def _look(self, *, is_news: bool) -> float:
        """Put what has changed into the ring; how many seconds of CPU time that took."""
        self._snapshots.clear()
        begun, before, now = time.thread_time(), self.ring.last, trio.current_time()
        for line in self._lines:
            self._add(Kind.LOG, line)
        for moment in self._moments:
            self._add(Kind.MOMENT, moment)
        if len(self._over) == NOTED_MAX:
            self.missed += NOTED_MAX
            self.ring.clear()  # some may be missing: everybody starts anew
        else:
            for record in self._over:
                self._add(Kind.REQUEST, row_of(record, now))
        self._timeline.extend(self._moments)
        for noted in (self._lines, self._moments, self._over):
            noted.clear()
        # Little of pools and models changes by itself.
        is_far = is_news or not self.is_awake or now - self._looked_far_at >= SLOW_S
        if is_far:
            self._looked_far_at = now
        scene = self.composer.scene(None if is_far else self._differ.scene, self._differ.kept)
        for kind, changed in self._differ.changes(scene, now):
            self._add(kind, changed)
        if not self.is_awake:
            self.ring.clear()  # a snapshot has it all
            self.is_awake = True
        if self.ring.last != before:
            self.told.set()
            self.told = trio.Event()
        return time.thread_time() - begun

    def _add(self, kind: Kind, row: msgspec.Struct | None) -> None:
        """Encode it, once for all readers."""
        number, key, model = self.ring.last + 1, None, None
        others: msgspec.Struct | None = None
        if isinstance(row, RequestRow):
            key, others = row.key, self.composer.as_its_client_sees_it(row)
        elif isinstance(row, ModelRow):
            model = row.name
            others = None if row.hidden else UsableModel.of(row)
        plain = b"" if others is None else self._event(kind, number, others)
        self.ring.add(Entry(self._event(kind, number, row), key, model, plain))

    def _event(self, kind: Kind, number: int, row: msgspec.Struct | None) -> bytes:
        return encoded(kind, f"{self.run_id}-{number}", msgspec.json.encode(row))

    # -- reading ------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Somebody reads while the block runs."""
        self._readers += 1
        self._news.set()
        try:
            yield
        finally:
            self._readers -= 1
            self._left_at = trio.current_time()

    def misses(self, events: int) -> None:
        """A reader fell behind, and does not get so many."""
        self.behind += 1
        self.missed += events

    def snapshot(self, view: View) -> bytes:
        """All that there is, as an event with the number of the last one in the ring. What is in it
        may be newer than that: rows are told again, and whoever has them takes the newest."""
        now = trio.current_time()
        made_at, text = self._snapshots.get(view, (0.0, b""))
        if text and now - made_at < SHARED_S:
            return text  # all that fell behind come at the same time
        told = len(self._book.recent) - len(self._over)  # the end of the others is still to be told
        over = [*self._book.recent][: max(told, 0)]
        data = self.composer.snapshot(self.run_id, view, over, self._timeline)
        text = self._event(Kind.SNAPSHOT, self.ring.last, data)
        self._snapshots[view] = now, text
        return text


def encoded(kind: Kind, id_: str, data: bytes) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id_.encode(), kind.value.encode(), data)
