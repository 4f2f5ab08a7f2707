"""View: how much of the feed a reader gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from trio_gateway.engine.resources import ModelRow
from trio_gateway.server.feed.ring import Entry
from trio_gateway.server.feed.rows import UsableModel
from trio_gateway.server.records.request_record import RequestRecord


class View(NamedTuple):
    """An admin's has everything. Others have their own key's requests, and the names and states of
    the models that it may use. `models` None: all."""

    is_admin: bool
    key: str | None = None
    models: frozenset[str] | None = None

    def text_of(self, entry: Entry) -> bytes:
        """The event as this reader gets it; empty: not at all."""
        if self.is_admin:
            return entry.text
        if entry.model is not None:
            return entry.plain if self.may_use(entry.model) else b""
        is_own = entry.key is not None and entry.key == self.key
        return (entry.plain or entry.text) if is_own else b""

    def owns(self, record: RequestRecord) -> bool:
        return self.is_admin or (record.key is not None and record.key == self.key)

    def usable(self, models: Iterable[ModelRow]) -> tuple[UsableModel, ...]:
        """Those that it may use and would find in a list of models."""
        shown = (row for row in models if not row.hidden and self.may_use(row.name))
        return tuple(map(UsableModel.of, shown))

    def may_use(self, model: str) -> bool:
        return self.is_admin or self.models is None or model in self.models
