"""A small collector of traces: OTLP over HTTP on a real socket, its spans decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.support.harness import WAIT_S

KINDS = {1: "internal", 2: "server", 3: "client"}


class Found(NamedTuple):
    """One span. Ids are hex, times seconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    begin_s: float
    end_s: float
    attributes: dict[str, Any]
    is_error: bool
    message: str
    events: dict[str, float]
    flags: int

    @property
    def took_s(self) -> float:
        return self.end_s - self.begin_s


class Collector:
    """`statuses`: of the next answers, before 200. `open`: not set, it answers nothing. `reached`:
    it was sent something, whether or not it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Found] = []
        self.resources: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.statuses: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self._news = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        status = self.statuses.pop(0) if self.statuses else 200
        with self._news:
            self.requests.append((path, headers))
            if status == 200:
                resource, spans = decoded(body)
                self.resources.append(resource)
                self.spans += spans
            self._news.notify_all()
        return status

    def of(self, trace: str, *, at_least: int = 1) -> dict[str, Found]:
        """The spans of a trace by their names, once there are so many."""
        return {span.name: span for span in self.wait(at_least, trace)}

    def wait(self, at_least: int, trace: str | None = None) -> list[Found]:
        def found() -> list[Found]:
            return [span for span in self.spans if trace in (None, span.trace)]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= at_least, WAIT_S), self.spans
            return found()

    def wait_for_requests(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.requests) >= count, WAIT_S)


def decoded(body: bytes) -> tuple[dict[str, Any], list[Found]]:
    """The resource, and the spans."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    return _values(resource.resource.attributes), [_found(span) for span in scope.spans]


def _found(span: Any) -> Found:
    return Found(
        span.name, KINDS[span.kind], span.trace_id.hex(), span.span_id.hex(),
        span.parent_span_id.hex(), span.trace_state,
        span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9,
        _values(span.attributes), span.status.code == 2, span.status.message,
        {event.name: event.time_unix_nano / 1e9 for event in span.events}, span.flags,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.reached.set()
            if not collector.open.wait(WAIT_S):
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = collector.take(self.path, headers, body)
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to stderr."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that went away."""

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    try:
        yield collector
    finally:
        collector.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
