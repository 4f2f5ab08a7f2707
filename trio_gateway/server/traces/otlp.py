"""Spans as OTLP has them: the body of a request to a collector, and what its answer says. Pure.

The messages are `opentelemetry-proto`'s, which is all of OpenTelemetry that is used here. Its
exporter sends with `requests`, which needs a thread that nothing can end; it waits up to 64 s
between tries, logs for itself, and takes settings from a dozen variables of the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from trio_gateway.server.traces.spans import Kind, Span, Value

CONTENT_TYPE = "application/x-protobuf"
SCOPE = "trio_gateway"
_KINDS = {
    Kind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    Kind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    Kind.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT,
}
_SAMPLED = 0x01
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


def encode(spans: Iterable[Span], resource: Mapping[str, Value], version: str) -> bytes:
    """The body of a request. `resource`: who sends them; `version`: of the gateway. A span takes
    15 µs."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    _fill(of_resource.resource.attributes, resource)
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = SCOPE, version
    for span in spans:
        _fill_span(of_scope.spans.add(), span)
    body: bytes = request.SerializeToString()
    return body


def rejected(body: bytes) -> tuple[int, str]:
    """Of a good answer: how many spans were not taken all the same, and why."""
    answer = trace_service_pb2.ExportTraceServiceResponse()
    try:
        answer.ParseFromString(body)
    except DecodeError:  # a collector that answers in another format has taken them
        return 0, ""
    partial = answer.partial_success
    return int(partial.rejected_spans), str(partial.error_message)


def _fill_span(made: Any, span: Span) -> None:
    made.trace_id, made.span_id, made.trace_state = span.trace, span.id, span.state
    made.flags = _SAMPLED | _HAS_IS_REMOTE | (_IS_REMOTE if span.is_parent_remote else 0)
    if span.parent is not None:
        made.parent_span_id = span.parent
    made.name, made.kind = span.name, _KINDS[span.kind]
    made.start_time_unix_nano, made.end_time_unix_nano = span.begin_ns, span.end_ns
    _fill(made.attributes, span.attributes)
    if span.error is not None:
        made.status.code, made.status.message = trace_pb2.Status.STATUS_CODE_ERROR, span.error
    if span.first_byte_ns is not None:
        made.events.add(name="first byte", time_unix_nano=span.first_byte_ns)


def _fill(attributes: Any, values: Mapping[str, Value]) -> None:
    for name, value in values.items():
        attributes.add(key=name, value=_value(value))


def _value(value: Value) -> Any:
    match value:
        case bool():
            return common_pb2.AnyValue(bool_value=value)
        case int():
            return common_pb2.AnyValue(int_value=value)
        case float():
            return common_pb2.AnyValue(double_value=value)
        case str():
            # What a client calls a model may have half of a pair of surrogates.
            plain = value.encode("utf-8", "replace").decode()
            return common_pb2.AnyValue(string_value=plain)
        case tuple():
            texts = common_pb2.ArrayValue(values=map(_value, value))
            return common_pb2.AnyValue(array_value=texts)
