"""Composer: what there is at this moment, as the rows of the feed. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
import trio

from trio_gateway import __version__
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.resources import ModelRow, PoolRow
from trio_gateway.engine.scheduling.sentence import Knows, all_known, sentence_of
from trio_gateway.engine.scheduling.waiting import Waiting
from trio_gateway.server.feed.rows import Captures, Moment, Scene, Snapshot
from trio_gateway.server.feed.view import View
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.records.request_row import RequestRow, known_of, row_of

# The row that a request still has, although time has passed; None: one is to be made.
Kept = Callable[[RequestRecord, float], RequestRow | None]

RECENT = 100
TIMELINE_S = 3600.0


def _nothing_kept(_: RequestRecord, __: float) -> RequestRow | None:
    return None


class Composer:
    """`captures`: what is being recorded. `others`: by pool, the bytes that other programs hold.

    Args:
        held: what requests hold of the budget.
    """

    def __init__(
        self,
        overview: Overview,
        book: RequestBook,
        config: GatewayConfig,
        held: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._overview, self._book, self._held = overview, book, held
        self.take_over(config)
        self.others: Mapping[str, int | None] = {}
        self.captures: Callable[[], Captures | None] = lambda: None

    def take_over(self, config: GatewayConfig) -> None:
        """Another configuration is in force."""
        self._models = config.models
        self._choices: dict[str, tuple[str, ...]] = {}
        for choice in (one for one in config.choices if not one.hidden):
            for member in choice.members:
                names = self._choices.get(member.model, ())
                self._choices[member.model] = (*names, choice.name)
        # By a key's name, the models that it may use; a key without an entry may use all.
        self._limits = {
            key.name: key.models
            for key in config.server.access.api_keys
            if key.models is not None and not key.admin
        }

    def scene(self, before: Scene | None, kept: Kept = _nothing_kept) -> Scene:
        """`before`: has the pools and models, as nothing has happened that would change them."""
        now = trio.current_time()
        return Scene(
            engines={row.engine: row for row in self._overview.engines()},
            requests={row.id: row for _, row in self._rows(now, kept=kept)},
            pools=self._pools() if before is None else before.pools,
            models=self.models() if before is None else before.models,
            captures=self.captures(),
        )

    def row(self, record: RequestRecord, knows: Knows = all_known) -> RequestRow:
        """Of one request, whether it is over or not."""
        row = known_of(row_of(record, trio.current_time()), knows)
        waiting = None if record.request is None else record.request.waiting()
        return row if waiting is None else _waits(row, waiting, knows)

    def models(self) -> dict[str, ModelRow]:
        rows = {model.name: self._overview.model_row(model) for model in self._models}
        for model, choices in self._choices.items():
            rows[model] = msgspec.structs.replace(rows[model], choices=choices)
        return rows

    def as_its_client_sees_it(self, row: RequestRow) -> RequestRow | None:
        """If its key may not know of every model; None: as everybody does."""
        models = None if row.key is None else self._limits.get(row.key)
        if models is None:
            return None
        seen, record = known_of(row, models.__contains__), self._book.live.get(row.id)
        if row.sentence and record is not None and record.request is not None:
            waiting = record.request.waiting()
            if waiting is not None:
                return _waits(seen, waiting, models.__contains__)
        return None if seen is row else seen

    def snapshot(
        self, run: str, view: View, over: Collection[RequestRecord], timeline: Collection[Moment]
    ) -> Snapshot:
        """`over`: requests, the newest last."""
        now, now_s = trio.current_time(), time.time()
        recent = [record for record in over if view.owns(record)][-RECENT:]
        models, rows = tuple(self.models().values()), self._rows(now, view.may_use)
        seen = Snapshot(
            run=run,
            version=__version__,
            now_s=round(now_s, 3),
            admin=view.is_admin,
            requests=tuple(row for record, row in rows if view.owns(record)),
            recent=tuple(known_of(row_of(record, now), view.may_use) for record in recent),
            models=models if view.is_admin else view.usable(models),
        )
        if not view.is_admin:
            return seen
        return msgspec.structs.replace(
            seen,
            pools=tuple(self._pools().values()),
            engines=tuple(self._overview.engines()),
            timeline=tuple(moment for moment in timeline if moment.at_s >= now_s - TIMELINE_S),
            held=self._held(),
            captures=self.captures(),
        )

    def _pools(self) -> dict[str, PoolRow]:
        others = self.others
        rows = self._overview.pools()
        return {
            row.name: msgspec.structs.replace(row, other_bytes=others.get(row.name)) for row in rows
        }

    def _rows(
        self, now: float, knows: Knows = all_known, kept: Kept = _nothing_kept
    ) -> Iterator[tuple[RequestRecord, RequestRow]]:
        """Of the requests that are under way."""
        waits: Mapping[int, Waiting] | None = None
        for record in self._book.live.values():
            if (row := kept(record, now)) is None:
                row, request = known_of(row_of(record, now), knows), record.request
                if request is not None:
                    waits = self._overview.all_waiting() if waits is None else waits
                    waiting = waits.get(request.event.ticket)
                    row = row if waiting is None else _waits(row, waiting, knows)
            yield record, row


def _waits(row: RequestRow, waiting: Waiting, knows: Knows) -> RequestRow:
    """`knows`: which models its sentence may name."""
    wait_s = waiting.expected_s
    return msgspec.structs.replace(
        row,
        sentence=sentence_of(waiting, knows),
        position=waiting.outlook.position,
        expected_wait_s=None if wait_s is None else round(wait_s, 1),
    )
