"""Which requests are asked for, and where a page of them begins. Pure.

Requests are in the order in which they came: a place in it never changes, whatever ends or comes
meanwhile, so that pages fit together.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from trio_gateway.server.records.request_record import Outcome, RequestRecord, Stage


class Whether(enum.Enum):
    """Words for several stages or outcomes at once."""

    LIVE = "live"  # it is under way
    ERROR = "error"  # it is over, and something went wrong


class StatusCodes(NamedTuple):
    """HTTP's, of requests that are over: one of them, or all of a class, such as `5xx`."""

    first: int
    last: int


Status = Outcome | Stage | Whether | StatusCodes


def status_of_word(word: str) -> Status | None:
    """None: it is not a status."""
    for kind in (Outcome, Stage, Whether):
        for known in kind:
            if known.value == word.lower():
                return known
    if len(word) == 3 and word[0] in "12345":
        if word[1:].lower() == "xx":
            return StatusCodes(int(word[0]) * 100, int(word[0]) * 100 + 99)
        if word.isascii() and word.isdecimal():
            return StatusCodes(int(word), int(word))
    return None


class Place(NamedTuple):
    """Where a request is in the order. `arrived_s`: Unix time, in whole milliseconds."""

    arrived_s: float
    id: str


def place_of(record: RequestRecord) -> Place:
    return Place(round(record.arrived_s, 3), record.id)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests; None: whichever it is. `key`: the only API key whose requests are shown.
    `model`: as it was asked for, or as it is called. `since_s`: Unix time."""

    key: str | None = None
    model: str | None = None
    client: str | None = None
    status: Status | None = None
    since_s: float | None = None

    def has(self, record: RequestRecord) -> bool:
        if self.key is not None and record.key != self.key:
            return False
        if self.model is not None and self.model not in (record.model, record.asked):
            return False
        if self.client is not None and self.client != client_of(record):
            return False
        if self.since_s is not None and record.arrived_s < self.since_s:
            return False
        return self._has_status(record)

    def _has_status(self, record: RequestRecord) -> bool:
        match self.status:
            case None:
                return True
            case Outcome():
                return record.outcome is self.status
            case Stage():
                return record.stage is self.status
            case Whether.LIVE:
                return record.outcome is None
            case Whether.ERROR:
                return record.outcome not in (None, Outcome.OK)
            case StatusCodes(first, last):
                return record.outcome is not None and first <= record.status <= last


def client_of(record: RequestRecord) -> str:
    return record.client or record.key or ""


def page_of(
    records: Iterable[RequestRecord], wanted: Wanted, before: Place | None, limit: int
) -> list[RequestRecord]:
    """The newest of them that came before that place, the newest first."""
    found = [
        record
        for record in records
        if (before is None or place_of(record) < before) and wanted.has(record)
    ]
    found.sort(key=place_of, reverse=True)
    return found[:limit]
