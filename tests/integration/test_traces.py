"""Spans of a real gateway in front of fake engines, as a small collector gets them."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.support.collector import Collector, Found, collecting
from tests.support.harness import (
    HYPERCORN,
    SERVE,
    WAIT_S,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    free_port,
    running_gateway,
)
from tests.support.optional import traces_there
from tests.support.patience import eventually, patient

pytestmark = pytest.mark.processes

CHAT = "/v1/chat/completions"
SPAN = "00f067aa0ba902b7"
PROMPT = "the prompt is nobody's business"
TOKEN = "Bearer collectors-secret-token"
ANSWER = {
    "model": "fake",
    "choices": [{"message": {"content": "nobody reads this"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}
UNDER_HYPERCORN = (*HYPERCORN, "-k", "trio", "-b", "127.0.0.1:0", "trio_gateway.app:app")
READY = {SERVE: r"Base URL for clients: (\S+)/v1", UNDER_HYPERCORN: r"Running on (\S+)"}


def trace_id(number: int) -> str:
    return f"{number:032x}"


def traced(number: int, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace_id(number)}-{SPAN}-{flags}", "tracestate": "test=1"}


def traces_to(url: str, more: str = "") -> str:
    return f'{{ endpoint = "{url}"{more} }}'


def remote_model(url: str) -> str:
    fields = "engine = presets.engines.remote, variants = { { context = 4096 } }"
    return f'{{ name = "r", {fields}, urls = {{ "{url}" }} }}'


@pytest.fixture(autouse=True)
def needs_the_extra() -> None:
    traces_there()


@contextmanager
def engine_elsewhere() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The URL of one, and the headers of the requests that it got."""
    got = list[dict[str, str]]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": []})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            got.append({name.lower(): value for name, value in self.headers.items()})
            self.answer({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})

        def answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(gateway: GatewayProcess, model: str, number: int, **fields: object) -> httpx.Response:
    body = chat_body(model, PROMPT, **fields)
    with gateway.client() as client:
        return client.post(CHAT, json=body, headers=traced(number))


def check_tree(spans: dict[str, Found], names: set[str]) -> Found:
    """The request, with the others below it and within its time, one after the other."""
    (request,) = (span for span in spans.values() if span.kind == "server")
    inner = {name: span for name, span in spans.items() if span is not request}
    assert set(inner) == names
    assert (request.parent, request.state) == (SPAN, "test=1")
    before = request.begin_s
    for name in ("queue", "load", "engine"):
        if name in inner:
            span = inner[name]
            assert (span.parent, span.trace, span.state) == (request.id, request.trace, "test=1")
            assert before - 0.002 <= span.begin_s <= span.end_s <= request.end_s + 0.002
            before = span.end_s
    assert len({span.id for span in spans.values()}) == len(spans)
    return request


def test_what_a_request_did_is_in_its_spans(tmp_path: Path) -> None:
    with collecting() as collector, engine_elsewhere() as (elsewhere, got):
        answers = tmp_path / "answers.json"
        answers.write_text(json.dumps({CHAT: {"json": ANSWER}}))
        models = [
            fake_model("told", "--load-s", "0.4", "--answers", str(answers), pool='"second"'),
            fake_model("one"),
            fake_model("other", "--load-s", "0.2"),
            fake_model("broken", "--crash-after", "2", pool='"second"'),
            remote_model(elsewhere),
        ]
        to_collector = traces_to(collector.url, f', headers = {{ Authorization = "{TOKEN}" }}')
        config = configuration(*models, traces=to_collector)
        config += "pools = { primary = {}, second = {}, remote = { engines = 9 } }\n"
        began_s = time.time()
        with running_gateway(tmp_path, config) as gateway:
            loaded(gateway, collector)
            waits_for_a_swap(gateway, collector)
            fails(gateway, collector)
            goes_elsewhere(gateway, collector, got)
            is_not_sampled(gateway, collector)
            has_no_trace_of_its_own(gateway, collector)
            page = httpx.get(f"{gateway.base_url}/metrics", trust_env=False).text
            shown = httpx.get(f"{gateway.base_url}/gateway/configuration", trust_env=False).text
        assert {path for path, _ in collector.requests} == {"/v1/traces"}
        (authorization,) = {headers["authorization"] for _, headers in collector.requests}
    assert authorization == TOKEN
    assert "trio_gateway_traces_sent_total" in page
    assert 'trio_gateway_traces_lost_total{reason="refused"} 0.0' in page
    assert "collectors-secret" not in shown + gateway.log
    resource = collector.resources[0]
    assert resource["service.name"] == "trio-gateway"
    for span in collector.spans:
        assert began_s - 1 < span.begin_s <= span.end_s < time.time() + 1
        assert PROMPT not in str(span)
        assert "nobody reads this" not in str(span)


def loaded(gateway: GatewayProcess, collector: Collector) -> None:
    answer = ask(gateway, "told", 1)
    assert answer.headers["traceparent"] == traced(1)["traceparent"]
    spans = collector.of(trace_id(1), at_least=4)
    request = check_tree(spans, {"queue", "load", "engine"})
    load = float(answer.headers["x-gateway-load-ms"]) / 1000
    assert spans["load"].took_s == pytest.approx(load, abs=0.002)
    assert load >= 0.4
    assert request.name == "POST /v1/chat/completions"
    assert (request.kind, spans["queue"].kind, spans["engine"].kind) == (
        "server", "internal", "client",
    )  # fmt: skip
    told = request.attributes
    assert told["http.request.method"] == "POST"
    assert told["http.route"] == CHAT
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("told", "told")
    assert told["gen_ai.usage.input_tokens"] == 9
    assert told["gen_ai.usage.output_tokens"] == 4
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["trio_gateway.request.id"] == answer.headers["x-gateway-request-id"]
    assert told["trio_gateway.client"] == "127.0.0.1"
    assert "error.type" not in told
    assert not request.is_error
    assert spans["engine"].attributes["trio_gateway.variant"] == "4096"
    assert "first byte" in spans["engine"].events


def is_answering(gateway: GatewayProcess) -> bool:
    with gateway.client() as client:
        return any(engine["leases"] for engine in client.get("/gateway/engines").json()["engines"])


def waits_for_a_swap(gateway: GatewayProcess, collector: Collector) -> None:
    """It waits for the answer that is under way, and then for its load."""
    assert gateway.chat("one").status_code == 200
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(gateway.chat, "one", stream=True, max_tokens=400)
        assert eventually(lambda: is_answering(gateway), WAIT_S)
        answered = pool.submit(ask, gateway, "other", 2, stream=True)
        assert b"[DONE]" in before.result().content
        assert answered.result().status_code == 200
    spans = collector.of(trace_id(2), at_least=4)
    request = check_tree(spans, {"queue", "load", "engine"})
    assert spans["queue"].took_s >= 0.3
    assert spans["load"].took_s >= 0.2
    assert spans["load"].attributes["trio_gateway.evicted"] == ["one:4096"]
    assert request.attributes["trio_gateway.streamed"] is True
    total = sum(spans[name].took_s for name in ("queue", "load", "engine"))
    assert request.took_s == pytest.approx(total, abs=0.1)


def fails(gateway: GatewayProcess, collector: Collector) -> None:
    assert ask(gateway, "nobody", 3).status_code == 404
    request = check_tree(collector.of(trace_id(3)), set())
    assert request.attributes["error.type"] == "model_not_found"
    assert request.attributes["http.response.status_code"] == 404
    assert not request.is_error, "the client's mistake is none of the server's"
    assert b"engine_failed" in ask(gateway, "broken", 4, stream=True, max_tokens=9).content
    spans = collector.of(trace_id(4), at_least=4)
    request = check_tree(spans, {"queue", "load", "engine"})
    for span in (request, spans["engine"]):
        assert (span.is_error, span.message) == (True, "engine_failed")
        assert span.attributes["error.type"] == "engine_failed"
    assert request.attributes["trio_gateway.outcome"] == "broken_off"


def goes_elsewhere(
    gateway: GatewayProcess, collector: Collector, got: list[dict[str, str]]
) -> None:
    assert ask(gateway, "r", 5).status_code == 200
    spans = collector.of(trace_id(5), at_least=3)
    (headers,) = got
    assert headers["traceparent"] == f"00-{trace_id(5)}-{spans['engine'].id}-01"
    assert headers["tracestate"] == "test=1"
    assert spans["engine"].attributes["gen_ai.provider.name"] == "remote"


def is_not_sampled(gateway: GatewayProcess, collector: Collector) -> None:
    with gateway.client() as client:
        answer = client.post(CHAT, json=chat_body("other"), headers=traced(6, "00"))
        assert answer.headers["traceparent"] == traced(6, "00")["traceparent"]
    ask(gateway, "other", 7)
    collector.wait(3, trace_id(7))
    assert trace_id(6) not in {span.trace for span in collector.spans}


def has_no_trace_of_its_own(gateway: GatewayProcess, collector: Collector) -> None:
    answer = gateway.chat("other")
    _, trace, span, flags = answer.headers["traceparent"].split("-")
    spans = collector.of(trace, at_least=3)
    (request,) = (span for span in spans.values() if span.kind == "server")
    assert (request.id, request.parent) == (span, "")
    assert int(flags, 16) & 1


@pytest.mark.parametrize("command", READY, ids=["serve", "hypercorn"])
def test_ctrl_c_sends_the_last_ones(tmp_path: Path, command: tuple[str, ...]) -> None:
    with collecting() as collector:
        config = configuration(fake_model("m"), traces=traces_to(collector.url))
        with running_gateway(tmp_path, config, command=command, ready=READY[command]) as gateway:
            assert ask(gateway, "m", 1).status_code == 200
            gateway.stop(signal.SIGINT)
        assert {"queue", "engine"} < set(collector.of(trace_id(1), at_least=3))


def test_a_dead_collector_costs_its_traces_and_one_line(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/traces?key=topsecret"
    config = configuration(fake_model("m"), traces=traces_to(url))
    with running_gateway(tmp_path, config, verbose=False) as gateway:
        for number in range(3):
            assert ask(gateway, "m", number + 1).status_code == 200
        gateway.wait_for_line(
            rf"ERROR.*no traces can be sent to http://127.0.0.1:{port}/v1/traces:"
        )
        with collecting(port) as collector:
            assert ask(gateway, "m", 4).status_code == 200
            collector.wait(3, trace_id(4))
            assert {span.trace for span in collector.spans} == {trace_id(n) for n in (1, 2, 3, 4)}
        gateway.wait_for_line("WARNING.*traces are sent to .* again")
        assert gateway.stop() == 0
    assert gateway.log.count("no traces can be sent") == 1
    assert "topsecret" not in gateway.log


def test_a_collector_that_says_nothing_holds_up_neither_requests_nor_the_end(
    tmp_path: Path,
) -> None:
    with collecting() as collector:
        collector.open.clear()
        config = configuration(fake_model("m"), traces=traces_to(collector.url))
        with running_gateway(tmp_path, config, verbose=False) as gateway:
            assert ask(gateway, "m", 1).status_code == 200
            assert collector.reached.wait(WAIT_S)
            began_s = time.monotonic()
            assert all(ask(gateway, "m", number).status_code == 200 for number in range(2, 12))
            assert time.monotonic() - began_s < patient(1.5)
            began_s = time.monotonic()
            assert gateway.stop(signal.SIGINT) == 0
            assert time.monotonic() - began_s < patient(4.0)
        assert "the traces of the last 11 requests are not sent" in gateway.log


def test_what_a_collector_refuses_is_lost_and_told_once(tmp_path: Path) -> None:
    with collecting() as collector:
        collector.statuses = [401, 400]
        config = configuration(fake_model("m"), traces=traces_to(collector.url))
        with running_gateway(tmp_path, config, verbose=False) as gateway:
            for number in (1, 2, 3):
                assert ask(gateway, "m", number).status_code == 200
                collector.wait_for_requests(number)
            gateway.wait_for_line("WARNING.*traces are sent to .* again; those of 2 requests are")
            page = httpx.get(f"{gateway.base_url}/metrics", trust_env=False).text
    assert 'trio_gateway_traces_lost_total{reason="refused"} 2.0' in page
    assert "trio_gateway_traces_sent_total 1.0" in page
    assert gateway.log.count("refuses traces: HTTP 401") == 1
    assert {span.trace for span in collector.spans} == {trace_id(3)}
