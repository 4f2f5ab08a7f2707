"""From the record of a request that is over to its spans: whose they are, and when they were."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.past_requests import NOON_S, past
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.server.api.trace_context import Sampler, Trace, trace_of
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.traces.spans import Kind, Span, spans_of

SENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = Sampler(1.0).joined(trace_of([(b"traceparent", SENT), (b"tracestate", b"a=1")]))
IDS = TRACE.spans
assert IDS is not None


def spans(record: RequestRecord, trace: Trace | None = TRACE) -> dict[str, Span]:
    record.trace = trace
    return {span.name: span for span in spans_of(record)}


def after_s(span: Span) -> tuple[float, float]:
    """Since its request came: from when to when."""
    begin, end = (round(ns / 1e9 - NOON_S, 3) for ns in (span.begin_ns, span.end_ns))
    return begin, end


def test_a_wait_and_a_load_lie_before_the_engine() -> None:
    """It came at 10.0, had its engine at 11.0 after 0.5 s in line and 0.25 s of its load."""
    found = spans(past(0, first_byte_at=11.25))
    assert {name: after_s(span) for name, span in found.items()} == {
        "POST /v1/chat/completions": (0.0, 2.0),
        "queue": (0.25, 0.75),
        "load": (0.75, 1.0),
        "engine": (1.0, 2.0),
    }
    first = found["engine"].first_byte_ns
    assert first is not None
    assert first / 1e9 - NOON_S == pytest.approx(1.25, abs=0.001)


def test_the_clients_span_is_the_parent_of_the_request_and_that_of_all_others() -> None:
    assert IDS is not None
    request, *others = spans(past(0)).values()
    assert (request.trace, request.id, request.parent) == (IDS.trace, IDS.request, IDS.parent)
    assert (request.kind, request.is_parent_remote) == (Kind.SERVER, True)
    for span in others:
        assert (span.trace, span.parent, span.is_parent_remote) == (IDS.trace, IDS.request, False)
    assert {span.state for span in (request, *others)} == {"a=1"}
    assert len({span.id for span in (request, *others)}) == 4
    assert others[-1].id == IDS.engine, "which the engine was told as its parent"


def test_what_is_sent_again_is_the_same() -> None:
    assert spans_of(traced := past(0, trace=TRACE)) == spans_of(traced) != []


def test_without_a_load_there_is_no_span_of_one() -> None:
    found = spans(past(0, load_s=0.0))
    assert [*found] == ["POST /v1/chat/completions", "queue", "engine"]
    assert after_s(found["queue"]) == (0.5, 1.0)


def test_one_that_got_no_engine_has_waited_to_its_end() -> None:
    lost = past(0, granted_at=None, sent_at=None, variant=None, queued_at=10.5, status=504)
    request, queue = spans(lost).values()
    assert (after_s(queue), queue.error) == ((0.5, 2.0), "http_504")
    assert request.error == "http_504"


def test_one_that_was_refused_at_once_has_no_other_span() -> None:
    (request,) = spans(past(0, granted_at=None, sent_at=None, status=404)).values()
    assert request.attributes["error.type"] == "http_404"
    assert request.error is None, "as it is the client's"


def test_a_wait_is_never_before_the_request() -> None:
    found = spans(past(0, queue_s=1.5, load_s=0.25))
    assert after_s(found["queue"]) == (0.0, 0.75)


@pytest.mark.parametrize(
    ("status", "fields", "of_request", "of_engine"),
    [
        (200, {}, None, None),
        (400, {"error": "context_length_exceeded"}, None, "context_length_exceeded"),
        (502, {"error": "engine_failed"}, "engine_failed", "engine_failed"),
        (200, {"error": "engine_failed", "first_byte_at": 11.5}, "engine_failed", "engine_failed"),
        (499, {"error": "request_cancelled"}, None, None),
    ],
)
def test_whose_error_it_is(
    status: int, fields: dict[str, Any], of_request: str | None, of_engine: str | None
) -> None:
    found = spans(past(0, status=status, **fields))
    request, engine = found["POST /v1/chat/completions"], found["engine"]
    assert (request.error, engine.error) == (of_request, of_engine)
    assert request.attributes.get("error.type") == fields.get("error")


def test_what_is_said_of_a_request() -> None:
    found = spans(past(0, key="ann", client="ann", is_streamed=True))
    told = found["POST /v1/chat/completions"].attributes
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "trio_gateway.request.id": "0" * 16,
        "trio_gateway.client": "ann",
        "trio_gateway.priority": "interactive",
        "trio_gateway.outcome": "ok",
        "trio_gateway.streamed": True,
    }
    of_load = spans(past(0, evicted=(VariantKey("n", "8192"),)))["load"].attributes
    assert of_load["trio_gateway.evicted"] == ("n:8192",)
    assert of_load["trio_gateway.variant"] == "4096"


@pytest.mark.parametrize(
    ("endpoint", "name", "operation"),
    [
        ("messages", "POST /v1/messages", "chat"),
        ("api/generate", "POST /api/generate", "text_completion"),
        ("embeddings", "POST /v1/embeddings", "embeddings"),
        ("rerank", "POST /v1/rerank", "rerank"),
        ("realtime", "GET /v1/realtime", "realtime"),
        ("upstream", "/upstream/{model}/{rest}", "upstream"),
    ],
)
def test_a_request_is_called_by_its_endpoint(endpoint: str, name: str, operation: str) -> None:
    request, *_ = spans(past(0, endpoint=endpoint)).values()
    assert (request.name, request.attributes["gen_ai.operation.name"]) == (name, operation)


NOT_SAMPLED = (None, trace_of([(b"traceparent", SENT)]), Sampler(0.0).joined(None))


@pytest.mark.parametrize("trace", NOT_SAMPLED, ids=["no trace", "no spans", "left out"])
def test_one_that_is_not_sampled_has_none(trace: Trace | None) -> None:
    assert spans(past(0), trace) == {}


def test_a_request_that_began_a_trace_has_no_parent() -> None:
    request, *_ = spans(past(0), Sampler(1.0).joined(None)).values()
    assert (request.parent, request.is_parent_remote) == (None, False)


def test_ids_are_of_the_right_length() -> None:
    for span in spans(past(0)).values():
        assert (len(span.trace), len(span.id), len(span.parent or b"")) == (16, 8, 8)
