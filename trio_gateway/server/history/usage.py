"""What requests used, summed up by model, client or day. Pure."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable

import msgspec

from trio_gateway.server.history.selection import client_of
from trio_gateway.server.records.request_record import Outcome, RequestRecord


class By(enum.Enum):
    MODEL = "model"
    CLIENT = "client"
    DAY = "day"  # on which it came, as the gateway's machine has it


class Sums(msgspec.Struct, kw_only=True):
    """`errors`: of the requests, those that ended in one; `cancelled` and `gone` (the client went
    away) are none. Tokens are those that engines have told. `took_s`: from their arrival to their
    end, all together; `waited_s` of it in line, `load_s` for a load."""

    requests: int = 0
    ok: int = 0
    errors: int = 0
    cancelled: int = 0
    gone: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    waited_s: float = 0.0
    load_s: float = 0.0
    took_s: float = 0.0

    def add(self, record: RequestRecord) -> None:
        self.requests += 1
        match record.outcome:
            case Outcome.OK:
                self.ok += 1
            case Outcome.CANCELLED:
                self.cancelled += 1
            case Outcome.CLIENT_GONE:
                self.gone += 1
            case _:
                self.errors += 1
        if (usage := record.usage) is not None:
            self.prompt_tokens += usage.prompt_tokens or 0
            self.cached_tokens += usage.cached_tokens or 0
        self.generated_tokens += record.generated or 0
        self.waited_s += record.way.queue_s
        self.load_s += record.way.load_s
        if record.ended_at is not None:
            self.took_s += record.ended_at - record.arrived_at

    def fields(self) -> dict[str, int | float]:
        found: dict[str, int | float] = msgspec.structs.asdict(self)
        for name in ("waited_s", "load_s", "took_s"):
            found[name] = round(found[name], 3)
        return found


def sums_of(records: Iterable[RequestRecord], by: By) -> dict[str, Sums]:
    """Of requests that are over; of one that was refused early, the model as it was asked for."""
    sums: dict[str, Sums] = {}
    for record in records:
        name = _name_of(record, by)
        if (found := sums.get(name)) is None:
            found = sums[name] = Sums()
        found.add(record)
    return sums


def _name_of(record: RequestRecord, by: By) -> str:
    match by:
        case By.MODEL:
            return record.model or record.asked or ""
        case By.CLIENT:
            return client_of(record)
    return time.strftime("%Y-%m-%d", time.localtime(record.arrived_s))


def usage_rows(sums: dict[str, Sums], by: By) -> list[dict[str, str | int | float]]:
    """Days: the newest first; others: who asked most first."""
    if by is By.DAY:
        ordered = sorted(sums.items(), reverse=True)
    else:
        ordered = sorted(sums.items(), key=lambda item: (-item[1].requests, item[0]))
    return [{by.value: name, **found.fields()} for name, found in ordered]
