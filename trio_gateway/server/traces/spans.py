"""The spans of a request that is over: the request, its wait, its load, and its engine. Pure.

    request
    ├─ queue    in line, until it has an engine or one that loads for it
    ├─ load     of that engine; only if it waited for that
    └─ engine   from its first byte to the answer's last

Names are OpenTelemetry's, where it has some (`http.…`, `gen_ai.…`). Tokens are on the request only,
as programs that show costs add up what they find. Prompts, answers and keys are on none.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping

import msgspec

from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.trace_context import SpanIds
from trio_gateway.server.records.request_record import Outcome, RequestRecord
from trio_gateway.server.records.request_row import RequestRow, row_of

Value = str | bool | int | float | tuple[str, ...]

_ROWS = {row.name: row for row in ENDPOINTS}
_OPERATIONS = {
    "chat/completions": "chat", "responses": "chat", "messages": "chat", "api/chat": "chat",
    "completions": "text_completion", "completion": "text_completion",
    "infill": "text_completion", "api/generate": "text_completion",
    "embeddings": "embeddings", "embedding": "embeddings", "api/embed": "embeddings",
    "api/embeddings": "embeddings",
}  # fmt: skip
_LOST = (Outcome.FAILED, Outcome.BROKEN_OFF)


class Kind(enum.Enum):
    """Whose side of a call a span is."""

    SERVER = "server"
    INTERNAL = "internal"
    CLIENT = "client"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Times are nanoseconds of Unix time. `error`: None: it went well, as far as is known.
    `first_byte_ns`: an event in it."""

    name: str
    kind: Kind
    trace: bytes
    state: str
    id: bytes
    parent: bytes | None
    is_parent_remote: bool = False
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error: str | None = None
    first_byte_ns: int | None = None


def spans_of(record: RequestRecord) -> list[Span]:
    """Of a request that is over; none if it is not sampled."""
    if record.trace is None or (ids := record.trace.spans) is None or record.ended_at is None:
        return []
    row = row_of(record, record.ended_at)
    made = [_request(record, row, ids), *_wait(record, ids)]
    if record.sent_at is not None:
        made.append(_engine(record, row, ids))
    return made


def _request(record: RequestRecord, row: RequestRow, ids: SpanIds) -> Span:
    endpoint = _ROWS.get(row.endpoint)
    method = endpoint.methods[0] if endpoint is not None and len(endpoint.methods) == 1 else None
    route = endpoint.paths[0] if endpoint is not None else row.endpoint
    attributes = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": row.status or None,
        "http.request.body.size": row.request_bytes or None,
        "http.response.body.size": row.answer_bytes or None,
        "error.type": row.error,
        "gen_ai.operation.name": _OPERATIONS.get(row.endpoint, row.endpoint),
        "gen_ai.request.model": row.asked,
        "gen_ai.response.model": row.model,
        "gen_ai.usage.input_tokens": row.prompt_tokens,
        "gen_ai.usage.output_tokens": row.generated_tokens,
        "gen_ai.usage.cache_read.input_tokens": row.cached_tokens,
        "gen_ai.response.finish_reasons": (row.finish,) if row.finish else None,
        "gen_ai.conversation.id": row.conversation,
        "trio_gateway.request.id": row.id,
        "trio_gateway.client": row.client or None,
        "trio_gateway.priority": row.priority,
        "trio_gateway.outcome": row.outcome,
        "trio_gateway.need": row.need,
        "trio_gateway.tries": row.tries or None,
        "trio_gateway.streamed": row.is_streamed,
    }
    is_failed = row.status >= 500 or record.outcome is Outcome.BROKEN_OFF
    return Span(
        name=route if method is None else f"{method} {route}",
        kind=Kind.SERVER,
        trace=ids.trace, state=ids.state, id=ids.request,
        parent=ids.parent, is_parent_remote=ids.parent is not None,
        begin_ns=_ns(record, record.arrived_at), end_ns=_end_ns(record),
        attributes=_known(attributes),
        error=(row.error or "") if is_failed else None,
    )  # fmt: skip


def _wait(record: RequestRecord, ids: SpanIds) -> list[Span]:
    """What it waited for; of one that lost its engine, before the last that it got."""
    way = record.way
    if way.granted_at is None:
        if way.queued_at is None:
            return []
        is_failed = record.status >= 500
        error = (record.error or "") if is_failed else None
        attributes = _known({"error.type": record.error})
        begin = _ns(record, way.queued_at)
        return [_inner("queue", ids, begin, _end_ns(record), attributes, error)]
    granted = way.granted_at
    loads_at = granted - way.load_s
    begin, middle, end = (
        _ns(record, moment) for moment in (loads_at - way.queue_s, loads_at, granted)
    )
    decision = "" if way.how is None else way.how.value
    attributes = _known({"trio_gateway.decision": decision or None})
    made = [_inner("queue", ids, begin, middle, attributes)]
    if way.load_s > 0:
        evicted = tuple(map(str, way.evicted))
        which = _known({**_variant(record), "trio_gateway.evicted": evicted or None})
        made.append(_inner("load", ids, middle, end, which))
    return made


def _engine(record: RequestRecord, row: RequestRow, ids: SpanIds) -> Span:
    assert record.sent_at is not None
    selection = record.selection
    attributes = {
        "gen_ai.provider.name": None if selection is None else selection.model.engine.value,
        **_variant(record),
        "trio_gateway.engine": row.engine,
        "trio_gateway.context": row.context,
        "trio_gateway.prompt_speed": row.prompt_speed,
        "trio_gateway.speed": row.speed,
        "trio_gateway.kv_restored": row.kv_restored or None,
        "error.type": row.error,
    }
    first = record.first_byte_at
    return Span(
        name="engine",
        kind=Kind.CLIENT,
        trace=ids.trace, state=ids.state, id=ids.engine, parent=ids.request,
        begin_ns=_ns(record, record.sent_at), end_ns=_end_ns(record),
        attributes=_known(attributes),
        error=(row.error or "") if record.outcome in _LOST else None,
        first_byte_ns=None if first is None else _ns(record, first),
    )  # fmt: skip


def _variant(record: RequestRecord) -> dict[str, Value | None]:
    key = record.way.variant
    if key is None:
        return {}
    return {"gen_ai.response.model": key.model, "trio_gateway.variant": key.variant}


def _inner(
    name: str,
    ids: SpanIds,
    begin_ns: int,
    end_ns: int,
    attributes: Mapping[str, Value],
    error: str | None = None,
) -> Span:
    return Span(
        name=name, kind=Kind.INTERNAL,
        trace=ids.trace, state=ids.state, id=_derived(ids, name), parent=ids.request,
        begin_ns=begin_ns, end_ns=end_ns, attributes=attributes, error=error,
    )  # fmt: skip


def _derived(ids: SpanIds, name: str) -> bytes:
    """The same if it is sent again."""
    return hashlib.blake2b(name.encode(), key=ids.request, digest_size=8).digest()


def _known(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}


def _end_ns(record: RequestRecord) -> int:
    assert record.ended_at is not None
    return _ns(record, record.ended_at)


def _ns(record: RequestRecord, moment: float) -> int:
    """Unix time of a moment of the monotonic clock, not before the request came."""
    after_s = max(moment - record.arrived_at, 0.0)
    return int(record.arrived_s * 1e9) + int(after_s * 1e9)
