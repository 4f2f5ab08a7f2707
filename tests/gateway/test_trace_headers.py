"""A client's `traceparent`, `tracestate` and `baggage`: what engines and answers have of it."""

from __future__ import annotations

import json
from typing import NamedTuple

import httpcore
import pytest

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat
from tests.support.forms import TYPE, form, part
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.server.api.trace_context import Sampler
from trio_gateway.server.traces.spans import Kind, spans_of

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENT = {"traceparent": TRACEPARENT, "tracestate": "congo=t61rcWkgMzE", "baggage": "user=ann"}
ENGINES_OWN = [
    (b"traceparent", b"00-11111111111111111111111111111111-2222222222222222-01"),
    (b"tracestate", b"engine=1"),
    (b"baggage", b"engine=1"),
]
FORM = form(part("model", b"m"), part("file", b"abc", '; filename="a.wav"'))


class Case(NamedTuple):
    path: str
    body: bytes
    kind: str = "application/json"


def asking(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


CASES = {
    "chat": Case(CHAT, chat()),
    "a stream": Case(CHAT, chat(stream=True)),
    "completions": Case("/v1/completions", chat(prompt="Hi")),
    "embeddings": Case("/v1/embeddings", asking(input="Hi")),
    "rerank": Case("/v1/rerank", asking(query="a", documents=["b"])),
    "responses": Case("/v1/responses", asking(input="Hi")),
    "messages": Case("/v1/messages", chat()),
    "count_tokens": Case("/v1/messages/count_tokens", chat()),
    "completion": Case("/completion", asking(prompt="Hi")),
    "tokenize": Case("/tokenize", asking(content="Hi")),
    "Ollama's chat": Case("/api/chat", chat(stream=False)),
    "Ollama's stream": Case("/api/chat", chat()),
    "Ollama's generate": Case("/api/generate", asking(prompt="Hi", stream=False)),
    "Ollama's embed": Case("/api/embed", asking(input="Hi")),
    "a form": Case("/v1/audio/transcriptions", FORM, TYPE),
    "upstream": Case("/upstream/m/v1/chat/completions", chat()),
    "upstream, a path that only the engine knows": Case("/upstream/m/x", b"{}"),
}


async def ask(stack: Stack, case: Case, headers: dict[str, str]) -> httpcore.Response:
    stack.engines.scripts = [[EVENT, DONE]] if b'"stream": true' in case.body else []
    stack.engines.kind.endpoints |= {
        "embeddings", "responses", "messages", "messages/count_tokens", "rerank",
        "audio/transcriptions", "completion", "tokenize",
    }  # fmt: skip
    return await stack.post(case.path, case.body, {**headers, "Content-Type": case.kind})


def traced(headers: dict[bytes, bytes]) -> dict[str, str]:
    return {name: headers[key].decode() for name in SENT if (key := name.encode()) in headers}


def echoed(answer: httpcore.Response) -> dict[str, str]:
    return traced({name.lower(): value for name, value in answer.headers})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_engine_gets_them_and_the_answer_names_the_trace(
    autojump_clock: Clock, case: Case
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.more_headers = ENGINES_OWN
        answer = await ask(stack, case, SENT)
        (_, got, _), *_ = stack.engines.requests
    assert traced(got) == SENT
    assert echoed(answer) == {"traceparent": TRACEPARENT}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_without_them_nothing_is_made_up(autojump_clock: Clock, case: Case) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.more_headers = ENGINES_OWN
        answer = await ask(stack, case, {})
        (_, got, _), *_ = stack.engines.requests
    assert (traced(got), echoed(answer)) == ({}, {})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("sent", [SENT, {}], ids=["the client's trace", "a new one"])
async def test_with_spans_of_the_gateways_own_the_engines_parent_is_one(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, case: Case, sent: dict[str, str]
) -> None:
    async with running_stack(config(model("m"))) as stack:
        monkeypatch.setattr(stack.gateway.book, "_sampler", Sampler(1.0))
        answer = await ask(stack, case, sent)
        (_, got, _), *_ = stack.engines.requests
        found = spans_of(stack.gateway.book.recent[-1])
    request, engine = found[0], found[-1]
    assert (request.kind, engine.kind) == (Kind.SERVER, Kind.CLIENT)
    flags = "01" if sent else "03"
    parent = f"00-{request.trace.hex()}-{engine.id.hex()}-{flags}"
    assert traced(got) == {**sent, "traceparent": parent}
    own = f"00-{request.trace.hex()}-{request.id.hex()}-{flags}"
    assert echoed(answer) == {"traceparent": sent.get("traceparent", own)}
    assert request.begin_ns <= engine.begin_ns <= engine.end_ns <= request.end_ns


async def test_an_invalid_traceparent_goes_nowhere_and_its_tracestate_neither(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await ask(stack, CASES["chat"], {**SENT, "traceparent": TRACEPARENT.upper()})
        (_, got, _), *_ = stack.engines.requests
    assert traced(got) == {"baggage": "user=ann"}
    assert echoed(answer) == {}


async def test_errors_and_pages_name_the_trace_as_well(autojump_clock: Clock) -> None:
    key = ApiKey(name="k", secret="sk-0123456789abcdef")
    access = AccessConfig(api_keys=(key,), allowed_hosts=("gateway",))
    async with running_stack(config(model("m"), access=access)) as stack:
        refused = await ask(stack, CASES["chat"], SENT)
    async with running_stack(config(model("m"))) as stack:
        unknown = await stack.post(CHAT, chat("n"), SENT)
        page = await stack.http.request("GET", "http://gateway/v1/models", headers=[*SENT.items()])
    assert [answer.status for answer in (refused, unknown, page)] == [401, 404, 200]
    for answer in (refused, unknown, page):
        assert echoed(answer) == {"traceparent": TRACEPARENT}


async def test_a_request_that_leaves_the_line_has_waited_since_it_came_there(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"), queue_timeout_s=2.0)) as stack:
        stack.engines.load_s = 60.0
        answer = await ask(stack, CASES["chat"], SENT)
        record = stack.gateway.book.recent[-1]
    assert answer.status == 504
    assert record.way.queued_at is not None
    assert record.ended_at is not None
    assert record.ended_at - record.way.queued_at == pytest.approx(2.0, abs=0.1)
