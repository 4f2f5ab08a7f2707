"""Any endpoint's request can be explained, as the endpoint itself would take it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.agent_requests import AGENT_REQUESTS, BILLING_LINE, AgentRequest
from tests.support.asking import Clock, error_of, header
from tests.support.fakes import FakeKind
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.server.api.billing_line import CONSTANT
from trio_gateway.server.api.endpoints import ENDPOINTS

Json = dict[str, Any]

CHAT, PROMPT, INPUT = "chat/completions", "completions", "embeddings"
SAYS: list[Json] = [{"role": "user", "content": "one two three"}]
TOOL: Json = {"name": "add", "input_schema": {"type": "object"}}
# By endpoint: bodies that it may get, and what they are counted as.
REQUESTS: dict[str, tuple[str, list[Json]]] = {
    "chat/completions": (CHAT, [{"messages": SAYS}, {"messages": SAYS, "tools": [], "n": 1}]),
    "responses": (CHAT, [
        {"input": SAYS, "instructions": "Be kind."},
        {"input": "Hi", "instructions": "Be kind."},
        {"input": [{"type": "message", "role": "user", "content": "Hi"}]},
        {"input": "Hi", "tools": [{"type": "web_search"}]},
        {"input": "Hi", "max_output_tokens": 9},
        {"input": "Hi", "stream": True},
        {"input": "Hi", "temperature": 0.5},
    ]),
    "messages": (CHAT, [
        {"messages": SAYS, "system": "Be kind.", "max_tokens": 9},
        {"messages": SAYS, "tools": [TOOL], "max_tokens": 9},
    ]),
    "completions": (PROMPT, [{"prompt": "Hi"}, {"prompt": ["Hi", "there"], "max_tokens": 9}]),
    "completion": (PROMPT, [{"prompt": "Hi", "n_predict": 9}]),
    "infill": (PROMPT, [{"input_prefix": "a", "input_suffix": "b"}]),
    "embeddings": (INPUT, [{"input": "Hi"}, {"input": ["a", "b"]}, {"input": [1, 2]}]),
    "embedding": (INPUT, [{"content": "Hi"}]),
    "rerank": (INPUT, [{"query": "q", "documents": ["a b", "c"]}, {"query": "q", "texts": ["a"]}]),
    "api/chat": (CHAT, [{"messages": SAYS, "options": {"num_ctx": 3000}, "stream": False}]),
    "api/generate": (CHAT, [{"prompt": "Hi", "system": "Be kind.", "stream": False}]),
    "api/embed": (INPUT, [{"input": ["Hi"], "options": {}}]),
    "api/embeddings": (INPUT, [{"prompt": "Hi"}]),
}  # fmt: skip
ROWS = {row.name: row for row in ENDPOINTS}
CASES = [(name, body) for name, (_, bodies) in REQUESTS.items() for body in bodies]
ANSWER = (  # to all of them
    b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],'
    b'"data":[{"index":0,"embedding":[1.0]}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
OLLAMAS = ("api/chat", "api/generate")
# What tells nothing of its endpoint but its name.
UNTOLD = ("api/embeddings",)


@pytest.fixture(autouse=True)
def _as_llama_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)


def given() -> GatewayConfig:
    return config(model("m", variant(1024), variant(4096), variant(200_000)))


def encoded(body: Json) -> bytes:
    return json.dumps({"model": "m", **body}).encode()


async def explained(stack: Stack, body: Json, endpoint: str | None = None) -> Json:
    query = "" if endpoint is None else f"?endpoint={endpoint}"
    answer = await stack.post(f"/gateway/explain{query}", encoded(body))
    assert answer.status == 200, answer.content
    found: Json = json.loads(answer.content)
    return found


def test_each_endpoint_that_is_counted_has_an_example() -> None:
    counted = [row.name for row in ENDPOINTS if row.is_counted]
    assert sorted(counted) == sorted(REQUESTS)


@pytest.mark.parametrize(("name", "body"), CASES)
async def test_a_request_is_explained_as_its_endpoint_takes_it(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str, body: Json
) -> None:
    ways = [name, *ROWS[name].paths, *(() if name in UNTOLD else (None,))]
    async with running_stack(given()) as stack:
        first, *others = [await explained(stack, body, way) for way in ways]
        with monkeypatch.context() as patch:
            read_here(patch, everything=True)
            others += [await explained(stack, body, way) for way in ways]
        assert others == [first] * len(others)
        assert first["endpoint"] == REQUESTS[name][0]
        assert stack.engines.processes == []
        stack.engines.scripts = [[ANSWER]]
        answer = await stack.post(ROWS[name].paths[0], encoded(body))
        assert header(answer, "X-Gateway-Need") == str(first["need"])
        assert header(answer, "X-Gateway-Variant") == first["variant"]


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("?endpoint=api/chat", {}, 400, "missing_content"),
        ("?endpoint=api/chat", {"messages": [{"role": 3}]}, 400, "invalid_request"),
        ("?endpoint=api/chat", {"model": "x", "messages": SAYS}, 404, "model_not_found"),
        ("?endpoint=tags", {"messages": SAYS}, 400, "unknown_endpoint"),
        ("?endpoint=api/tags", {"messages": SAYS}, 400, "unknown_endpoint"),
        ("?endpoint=responses", {"messages": SAYS}, 400, "missing_input"),
        ("", {"x": 1}, 400, "missing_content"),
        ("", {"model": 3, "input": "a"}, 400, "missing_model"),
    ],
)
async def test_what_cannot_be_explained_is_an_error(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: Json,
    status: int,
    code: str,
    is_large: bool,
) -> None:
    if is_large:
        read_here(monkeypatch, everything=True)
    async with running_stack(given()) as stack:
        answer = await stack.post(f"/gateway/explain{path}", encoded(body))
        assert (answer.status, error_of(answer)["code"]) == (status, code)


@pytest.mark.parametrize("request_", AGENT_REQUESTS, ids=[r.name for r in AGENT_REQUESTS])
async def test_an_agents_request_is_the_same_to_both_readers(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, request_: AgentRequest
) -> None:
    body = {**request_.body, "stream": False}
    path = ROWS[request_.endpoint].paths[0]
    async with running_stack(given()) as stack:
        small = await explained(stack, body, request_.endpoint)
        assert small["bounds"]["lower"] <= small["bounds"]["upper"]
        stack.engines.scripts = [[ANSWER]]
        assert (await stack.post(path, encoded(body))).status == 200
    async with running_stack(given()) as other:
        read_here(monkeypatch, everything=True)
        assert await explained(other, body, request_.endpoint) == small
        other.engines.scripts = [[ANSWER]]
        assert (await other.post(path, encoded(body))).status == 200
    assert sent_to(other) == sent_to(stack)
    if request_.endpoint not in OLLAMAS:
        ((_, sent),) = sent_to(stack)
        line = json.dumps(body).replace(BILLING_LINE, CONSTANT.decode())
        assert sent == {"model": "m", **json.loads(line)}  # as it came


def sent_to(stack: Stack) -> list[tuple[str, Any]]:
    return [(target, json.loads(data)) for target, _, data in stack.engines.requests]
