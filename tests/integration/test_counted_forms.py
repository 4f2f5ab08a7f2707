"""What agents' requests are counted as, beside the real engine's own counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.agent_requests import AGENT_REQUESTS, BILLING_LINE, AgentRequest
from tests.support.harness import configuration, model, real_variant, running_gateway
from tests.support.request_kinds import KINDS, has_picture
from tests.support.tiny_model import write_tiny_model
from trio_gateway.server.api.billing_line import CONSTANT

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

# With all that a template may show: tools, calls, their results, thoughts.
_TEMPLATE = (
    "{%- set first = messages[0].content if messages[0].role == 'system' else 'You help.' %}"
    "{{- '<|im_start|>system\n' + first }}"
    "{%- if tools %}{{- '\nTools:\n' }}{% for tool in tools %}{{- tool | tojson + '\n' }}"
    '{%- endfor %}{{- \'Write <tool_call>{"name": NAME, "arguments": {}}</tool_call>\' }}'
    "{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>' + message.content + '</tool_response><|im_end|>\n' }}"
    "{%- elif message.role != 'system' or not loop.first %}"
    "{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.reasoning_content %}"
    "{{- '<think>' + message.reasoning_content + '</think>\n' }}{% endif %}"
    "{{- message.content or '' }}"
    "{%- for call in message.tool_calls or [] %}"
    '{{- \'\n<tool_call>{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}</tool_call>' }}{% endfor %}"
    "{{- '<|im_end|>\n' }}{% endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"
)
_COUNTS = {
    "chat/completions": "/v1/chat/completions/input_tokens",
    "responses": "/v1/responses/input_tokens",
    "messages": "/v1/messages/count_tokens",
}
_PATHS = {"api/chat": "/api/chat", "api/generate": "/api/generate"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a gateway with an engine that runs."""
    folder = tmp_path_factory.mktemp("forms")
    file = write_tiny_model(folder / "tools.gguf", _TEMPLATE)
    variants = [real_variant(context, file=file) for context in (4096, 8192)]
    config = configuration(model("m", *variants), kv_carryover="false")
    with running_gateway(folder, config) as gateway, gateway.client() as client:
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        yield client


def explained(client: httpx.Client, request: AgentRequest) -> dict[str, Any]:
    body = {"model": "m", **request.body}
    answer = client.post("/gateway/explain", params={"endpoint": request.endpoint}, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asked_straight(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    """Of the engine itself, but with what the gateway changes in every request."""
    given = json.dumps({"model": "m", **body}).replace(BILLING_LINE, CONSTANT.decode())
    return client.post(f"/upstream/m{path}", content=given)


TAKEN = [r for r in AGENT_REQUESTS if r.is_taken and r.endpoint in _COUNTS]
# A model without eyes gets no pictures.
REFUSED = [r for r in AGENT_REQUESTS if not r.is_taken and "pictur" not in r.name]
OLLAMA = [r for r in AGENT_REQUESTS if r.endpoint in _PATHS]


@pytest.mark.parametrize("request_", TAKEN, ids=[r.name for r in TAKEN])
def test_a_request_is_counted_as_the_engine_counts_it(
    client: httpx.Client, request_: AgentRequest
) -> None:
    straight = asked_straight(client, _COUNTS[request_.endpoint], request_.body)
    assert straight.status_code == 200, straight.text
    found = explained(client, request_)
    assert found["counted"] == straight.json()["input_tokens"]
    assert (found["counted_by"], found["is_exact"]) == ("engine", True)
    assert found["bounds"]["lower"] <= found["counted"] <= found["bounds"]["upper"]


@pytest.mark.parametrize("request_", OLLAMA, ids=[r.name for r in OLLAMA])
def test_a_request_to_ollamas_api_is_counted_as_it_is_read(
    client: httpx.Client, request_: AgentRequest
) -> None:
    answer = client.post(_PATHS[request_.endpoint], json={"model": "m", **request_.body})
    assert answer.status_code == 200, answer.text
    found = explained(client, request_)
    assert found["counted"] == answer.json()["prompt_eval_count"]
    assert (found["counted_by"], found["is_exact"]) == ("engine", True)


@pytest.mark.parametrize("request_", REFUSED, ids=[r.name for r in REFUSED])
def test_what_the_engine_refuses_is_counted_and_gets_to_it_as_it_came(
    client: httpx.Client, request_: AgentRequest
) -> None:
    path = f"/v1/{request_.endpoint}"
    straight = asked_straight(client, path, request_.body)
    assert straight.status_code >= 400
    found = explained(client, request_)
    assert (found["counted_by"], found["is_exact"]) == ("engine", True)
    answer = client.post(path, json={"model": "m", **request_.body})
    assert answer.status_code == straight.status_code
    assert answer.json()["error"]["message"] == straight.json()["error"]["message"]


# What makes the engine refuse the question, whatever it is asked about.
UNCOUNTED = {"arguments that are no JSON"}


@pytest.mark.parametrize("endpoint", KINDS)
def test_each_kind_of_tool_message_and_part_is_counted_as_the_engine_counts_it(
    client: httpx.Client, endpoint: str
) -> None:
    """What it takes; what it refuses is counted all the same."""
    straight, found = {}, {}
    for name, body in KINDS[endpoint].items():
        if has_picture(body):  # a model without eyes gets none
            continue
        answer = asked_straight(client, _COUNTS[endpoint], body)
        seen = explained(client, AgentRequest(name, endpoint, body))
        assert (seen["counted_by"] == "engine") is (name not in UNCOUNTED), name
        if answer.status_code == 200:
            straight[name], found[name] = answer.json()["input_tokens"], seen["counted"]
            assert seen["bounds"]["lower"] <= seen["counted"] <= seen["bounds"]["upper"], name
    assert found == straight
    assert len(found) > len(KINDS[endpoint]) / 3


def test_a_search_of_the_web_needs_no_more_than_its_text(client: httpx.Client) -> None:
    """By its bytes it would have been too long for any variant."""
    (request,) = [r for r in TAKEN if r.name == "codex, web search alone"]
    found = explained(client, request)
    assert found["bounds"]["upper"] > 8192
    assert found["need"] < 4096


MAXIMA: list[dict[str, Any]] = [
    {"max_tokens": 3, "n_predict": 5},
    {"max_tokens": 5, "n_predict": 3},
    {"max_tokens": 3, "max_completion_tokens": 5},
    {"max_tokens": 5, "max_completion_tokens": 3},
    {"max_completion_tokens": 3, "n_predict": 5},
    {"max_completion_tokens": 5, "n_predict": None},
]
HI: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"prompt": "Hi"},
    "responses": {"input": "Hi", "max_output_tokens": 4},
    "messages": {"messages": [{"role": "user", "content": "Hi"}]},
}


@pytest.mark.parametrize("endpoint", HI)
def test_of_several_maxima_the_one_is_counted_that_the_engine_goes_by(
    client: httpx.Client, endpoint: str
) -> None:
    for maxima in MAXIMA:
        if endpoint == "messages" and "max_tokens" not in maxima:
            continue
        body = {**HI[endpoint], **maxima, "ignore_eos": True}
        answer = client.post(f"/upstream/m/v1/{endpoint}", json=body).json()["usage"]
        made = answer.get("completion_tokens", answer.get("output_tokens"))
        assert explained(client, AgentRequest("", endpoint, body))["answer"] == made, maxima
