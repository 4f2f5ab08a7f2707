"""Feed: what the gateway is doing, as events for those who look on.

One task, which sleeps while there is nobody. It wakes on the bus, looks at most four times a
second, and only while something is under way or has happened; so nothing of this is on a request's
way. Between two looks it only notes what it is told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from secrets import token_hex

import msgspec
import trio

from trio_gateway import __version__
from trio_gateway.bus import Bus
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.happenings import EngineChanged, ModelKept
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.resources import ModelRow, PoolRow
from trio_gateway.engine.scheduling.sentence import sentence_of
from trio_gateway.lines import GATEWAY, LogLine
from trio_gateway.server.feed.differ import Differ
from trio_gateway.server.feed.ring import Entry, Ring
from trio_gateway.server.feed.rows import (
    Captures,
    Kind,
    Moment,
    Scene,
    Snapshot,
    UsableModel,
    moment_of,
)
from trio_gateway.server.feed.view import View
from trio_gateway.server.records.request_book import RequestBegan, RequestBook
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.records.request_row import RequestRow, row_of
from trio_gateway.wall_clock import WallClock

LOOK_S = 0.25  # between two looks at least
SHARE = 20  # and so many times what the last one took: it costs a twentieth of a processor at most
SLOW_S = 5.0  # between looks at what changes by itself, where nothing happens
LINGER_S = 30.0  # a reader that comes back within this goes on where it was
RECENT = 100
TIMELINE_MAX, TIMELINE_S = 2000, 3600.0
NOTED_MAX = 1000  # of each kind between two looks
_PLAIN_LEVELS = ("DEBUG", "INFO")


class Feed:
    """`run` in a task; `reading` while there is a reader. `captures`: what is being recorded.

    Args:
        models: the configuration's.
        held: what requests hold of the budget.
    """

    def __init__(
        self,
        bus: Bus,
        overview: Overview,
        book: RequestBook,
        models: Sequence[ModelConfig],
        held: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._bus, self._overview, self._book = bus, overview, book
        self._models, self._held = models, held
        self.captures: Callable[[], Captures | None] = lambda: None
        self.run_id = token_hex(4)
        self.ring = Ring()
        self.told = trio.Event()  # replaced whenever it is set: there is more in the ring
        self.is_awake = False
        self._wall = WallClock()
        self._differ = Differ()
        self._readers, self._left_at = 0, -LINGER_S
        self._news = trio.Event()
        self._timeline: deque[Moment] = deque(maxlen=TIMELINE_MAX)
        self._moments: deque[Moment] = deque(maxlen=NOTED_MAX)
        self._over: deque[RequestRecord] = deque(maxlen=NOTED_MAX)
        self._lines: deque[LogLine] = deque(maxlen=NOTED_MAX)
        self._looked_far_at = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What engines do is noted all the time, as it is rare."""
        with self._bus.listening(EngineChanged, self._note_change):
            task_status.started()
            while True:
                await self._news.wait()
                if self._readers:
                    await self._tell()
                self._news = trio.Event()

    async def _tell(self) -> None:
        """Until nobody has read for a while."""
        with ExitStack() as stack:
            for kind in (RequestBegan, ModelKept):
                stack.enter_context(self._bus.listening(kind, self._wake))
            stack.enter_context(self._bus.listening(LogLine, self._note_line))
            stack.enter_context(self._bus.listening(RequestRecord, self._note_end))
            while self._readers or trio.current_time() < self._left_at + LINGER_S:
                is_news, self._news = self._news.is_set(), trio.Event()
                took_s = self._look(is_news=is_news)
                await trio.sleep(max(LOOK_S, took_s * SHARE))
                if not self._book.live:
                    with trio.move_on_after(SLOW_S):
                        await self._news.wait()
        self.is_awake = False
        self.ring.clear()
        self._differ = Differ()
        self._over.clear()

    # -- on the bus: notes, and no more -------------------------------------------------------

    def _note_change(self, change: EngineChanged) -> None:
        self._moments.append(moment_of(change, self._wall.unix(change.at)))
        self._news.set()

    def _note_line(self, line: LogLine) -> None:
        if line.source == GATEWAY and line.level not in _PLAIN_LEVELS:
            self._lines.append(line)
            self._news.set()

    def _note_end(self, record: RequestRecord) -> None:
        self._over.append(record)
        self._news.set()

    def _wake(self, _: object) -> None:
        self._news.set()

    # -- looking ------------------------------------------------------------------------------

    def _look(self, *, is_news: bool) -> float:
        """Put what has changed into the ring; how many seconds that took."""
        begun, before, now = time.perf_counter(), self.ring.last, trio.current_time()
        for moment in self._moments:
            self._timeline.append(moment)
            self._add(Kind.MOMENT, moment)
        self._moments.clear()
        for line in self._lines:
            self._add(Kind.LOG, line)
        self._lines.clear()
        if len(self._over) == NOTED_MAX:
            self.ring.clear()  # some may be missing: everybody starts anew
        else:
            for record in self._over:
                self._add(Kind.REQUEST, row_of(record, now))
        self._over.clear()
        for kind, changed in self._differ.changes(self._scene(now, is_news=is_news), now):
            self._add(kind, changed)
        if self.ring.last != before or not self.is_awake:
            self.is_awake = True
            self.told.set()
            self.told = trio.Event()
        return time.perf_counter() - begun

    def _scene(self, now: float, *, is_news: bool) -> Scene:
        """What there is now. Pools and models are looked at if something has happened, and now and
        then, as little of them changes by itself."""
        known = self._differ.scene
        if is_news or not self.is_awake or now - self._looked_far_at >= SLOW_S:
            self._looked_far_at = now
            pools, models = self._pools(), self._model_rows()
        else:
            pools, models = {**known.pools}, {**known.models}
        return Scene(
            engines={row.engine: row for row in self._overview.engines()},
            requests={record.id: row for record, row in self._rows(now)},
            pools=pools,
            models=models,
            captures=self.captures(),
        )

    def _pools(self) -> dict[str, PoolRow]:
        return {row.name: row for row in self._overview.pools()}

    def _model_rows(self) -> dict[str, ModelRow]:
        return {model.name: self._overview.model_row(model) for model in self._models}

    def _rows(self, now: float) -> Iterator[tuple[RequestRecord, RequestRow]]:
        """Of the requests that are under way."""
        waits = self._overview.all_waiting()
        for record in self._book.live.values():
            row, request = row_of(record, now), record.request
            waiting = None if request is None else waits.get(request.event.ticket)
            if waiting is not None:
                wait_s = waiting.expected_s
                row = msgspec.structs.replace(
                    row,
                    sentence=sentence_of(waiting),
                    position=waiting.outlook.position,
                    expected_wait_s=None if wait_s is None else round(wait_s, 1),
                )
            yield record, row

    def _add(self, kind: Kind, row: msgspec.Struct | None) -> None:
        number = self.ring.last + 1
        text = self._event(kind, number, row)
        if isinstance(row, ModelRow):
            plain = b""
            if not row.hidden:
                plain = self._event(kind, number, UsableModel(row.name, row.state))
            self.ring.add(Entry(text, model=row.name, plain=plain))
        else:
            own = row.key if isinstance(row, RequestRow) else None
            self.ring.add(Entry(text, key=own))

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

    def snapshot(self, view: View) -> bytes:
        """All that there is, as an event with the number of the last one in the ring. What is in it
        may be newer than that: rows are told again, and whoever has them takes the newest."""
        now = trio.current_time()
        told = [*self._book.recent][: len(self._book.recent) - len(self._over)]
        recent = [record for record in told if view.owns(record)][-RECENT:]
        models = tuple(self._model_rows().values())
        oldest_s, now_s = self._wall.unix(now) - TIMELINE_S, time.time()
        held: Mapping[str, int] = {}
        timeline: tuple[Moment, ...] = ()
        if view.is_admin:
            held = self._held()
            timeline = tuple(moment for moment in self._timeline if moment.at_s >= oldest_s)
        data = Snapshot(
            run=self.run_id,
            version=__version__,
            now_s=round(now_s, 3),
            admin=view.is_admin,
            pools=tuple(self._overview.pools()) if view.is_admin else (),
            engines=tuple(self._overview.engines()) if view.is_admin else (),
            requests=tuple(row for record, row in self._rows(now) if view.owns(record)),
            recent=tuple(row_of(record, now) for record in recent),
            timeline=timeline,
            models=models if view.is_admin else view.usable(models),
            held=held,
            captures=self.captures() if view.is_admin else None,
        )
        return self._event(Kind.SNAPSHOT, self.ring.last, data)


def encoded(kind: Kind, id_: str, data: bytes) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id_.encode(), kind.value.encode(), data)
