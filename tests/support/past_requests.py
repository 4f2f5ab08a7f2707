"""Records of requests that are over, as the history gets them."""

from __future__ import annotations

from typing import Any

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.server.records.request_record import RequestRecord, Way

NOON_S = 1_795_867_200.0  # 28 November 2026, 12:00 UTC


def past(number: int, model: str | None = "m", **fields: Any) -> RequestRecord:
    """The `number`-th, a second after the one before. `error`, `status`: how it ended."""
    record = RequestRecord(f"{number:016x}", 10.0, NOON_S + number)
    record.endpoint, record.asked, record.client = "chat/completions", model, "somebody"
    way: dict[str, Any] = {
        "variant": None if model is None else VariantKey(model, "4096"),
        "granted_at": 11.0,
        "queue_s": 0.5,
        "load_s": 0.25,
    }
    way |= {name: fields.pop(name) for name in Way.__struct_fields__ if name in fields}
    record.way, record.sent_at = Way(**way), 11.0
    record.usage = Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=3)
    status = fields.pop("status", 200)
    for name, value in fields.items():
        setattr(record, name, value)
    record.ends(12.0, status, is_gone=False, is_torn=False)
    return record
