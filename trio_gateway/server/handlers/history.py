"""HistoryHandler: the requests under `/gateway/requests`, what they used, and how one is ended."""

from __future__ import annotations

import re
import time
from datetime import datetime

import msgspec

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.feed.composer import Composer
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.history.history import History
from trio_gateway.server.history.selection import (
    Place,
    Status,
    Wanted,
    Whether,
    status_of_word,
)
from trio_gateway.server.history.stored import StoredRequest
from trio_gateway.server.history.usage import By, usage_rows
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import Outcome, RequestRecord, Stage
from trio_gateway.server.records.request_row import RequestRow, known_of
from trio_gateway.server.relay.answer import Answer

LIMIT, LIMIT_MAX = 100, 1000
_ID = re.compile("[0-9a-f]{16}")
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_AGO_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class HistoryHandler:
    def __init__(self, book: RequestBook, history: History, composer: Composer) -> None:
        self._book, self._history, self._composer = book, history, composer

    async def handle_requests(self, endpoint: Endpoint, call: Call) -> Answer:
        wanted, limit = _wanted(call), _limit(call)
        before = await self._before(call, wanted)
        found = await self._history.page(wanted, before, limit + 1)
        row_of, allows = self._composer.row, call.permissions.allows
        rows = [
            row_of(one, allows) if isinstance(one, RequestRecord) else _known(one, call)
            for one in found.requests[:limit]
        ]
        page = {"requests": rows, "more": len(found.requests) > limit}
        return json_answer({**page, **_partial(found.partial)})

    async def handle_usage(self, endpoint: Endpoint, call: Call) -> Answer:
        by, wanted = _by(call), _wanted(call)
        sums, fault = await self._history.sums(wanted, by)
        rows = usage_rows(sums, by)
        return json_answer({"by": by.value, "usage": rows, **_partial(fault)})

    async def handle_cancel(self, endpoint: Endpoint, call: Call) -> Answer:
        """It is over once its task has noticed, which is at once."""
        id_, own = call.values["id"], _own_key(call)
        record = self._book.live.get(id_)
        if record is None or not Wanted(key=own).has(record):
            raise await self._not_live(id_, own)
        stage = record.stage
        self._book.cancel(record)
        return json_answer({"id": record.id, "cancelled": True, "stage": stage.value})

    async def _not_live(self, id_: str, own: str | None) -> ApiError:
        if await self._history.place_of(id_, own) is not None:
            return ApiError(409, f"the request {id_} is over", code="request_over")
        message = f"there is no request {id_[:40]!r}; GET /gateway/requests lists them"
        return ApiError(404, message, code="unknown_request")

    async def _before(self, call: Call, wanted: Wanted) -> Place | None:
        """Where the page begins. Raises ApiError: 400, nobody knows where that is."""
        if not (said := call.query("before")):
            return None
        if _ID.fullmatch(said) is None:
            return Place(_moment(said, "before"), "")
        if (place := await self._history.place_of(said, wanted.key)) is not None:
            return place
        message = f"?before={said} is not a request that is remembered; begin anew without it"
        raise ApiError(400, message, code="invalid_parameter", param="before")


def _known(stored: StoredRequest, call: Call) -> msgspec.Raw | RequestRow:
    """The row of the file as it is, or without what a key with some models only may not know."""
    if call.permissions.models is None or b'"evicted":["' not in bytes(stored.row):
        return stored.row
    row = msgspec.json.decode(stored.row, type=RequestRow)
    return known_of(row, call.permissions.allows)


def _partial(fault: str) -> dict[str, str]:
    """Why something is missing, if it is."""
    return {"partial": fault} if fault else {}


def _own_key(call: Call) -> str | None:
    """The only one whose requests are shown; None: all are."""
    return None if call.permissions.admin else call.permissions.key


def _wanted(call: Call) -> Wanted:
    since = call.query("since")
    return Wanted(
        key=_own_key(call),
        model=call.query("model") or None,
        client=call.query("client") or None,
        status=_status(call),
        since_s=_moment(since, "since") if since else None,
    )


def _status(call: Call) -> Status | None:
    if not (said := call.query("status")):
        return None
    if (status := status_of_word(said)) is None:
        words = [known.value for kind in (Outcome, Stage, Whether) for known in kind]
        expected = f"{', '.join(words)}, or HTTP's, such as 502 or 5xx"
        raise _invalid("status", said, expected)
    return status


def _limit(call: Call) -> int:
    if (said := call.query("limit")) is None:
        return LIMIT
    if not (said.isascii() and said.isdecimal() and len(said) < 10 and 1 <= int(said) <= LIMIT_MAX):
        raise _invalid("limit", said, f"1 to {LIMIT_MAX}")
    return int(said)


def _moment(said: str, name: str) -> float:
    """Unix time."""
    if (ago := _AGO.fullmatch(said)) is not None:
        return time.time() - float(ago[1]) * _AGO_S[ago[2]]
    try:
        return float(said) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", said) else _date(said)
    except (ValueError, OverflowError, OSError):
        expected = "Unix time, a date such as 2026-11-28T10:00, or how long ago, such as 30m or 7d"
        if name == "before":
            expected = f"the id of a request, {expected}"
        raise _invalid(name, said, expected) from None


def _date(said: str) -> float:
    try:
        return datetime.fromisoformat(said).timestamp()
    except ValueError:  # an offset's plus, which means a space in a query
        return datetime.fromisoformat(said.replace(" ", "+")).timestamp()


def _by(call: Call) -> By:
    said, known = call.query("by"), {by.value: by for by in By}
    if said is None:
        return By.MODEL
    if (by := known.get(said)) is None:
        raise _invalid("by", said, ", ".join(known))
    return by


def _invalid(name: str, said: str, expected: str) -> ApiError:
    message = f"?{name}= is {said[:40]!r}; expected {expected}"
    return ApiError(400, message, code="invalid_parameter", param=name)
