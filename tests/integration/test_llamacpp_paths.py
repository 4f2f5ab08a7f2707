"""llama.cpp's own paths and lists, held against the real engine's own answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import configuration, model, real_variant, running_gateway

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
TEMPLATE = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ messages[0].content }}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a gateway with a chat model, the same with tools by a file, and one for vectors."""
    folder: Path = tmp_path_factory.mktemp("paths")
    (folder / "tools.jinja").write_text(TEMPLATE)
    with_tools = real_variant(1024, "--chat-template-file", str(folder / "tools.jinja"))
    config = configuration(
        model("m", real_variant(1024), kv_carryover="false"),
        model("tools", with_tools),
        model("vectors", real_variant(512, "--embeddings", "--pooling", "none")),
    )
    with running_gateway(folder, config) as gateway, gateway.client() as asking:
        yield asking


def listed(client: httpx.Client, name: str) -> Any:
    return next(m for m in client.get("/models").json()["data"] if m["id"] == name)


def test_the_list_says_of_a_file_what_the_engine_says(client: httpx.Client) -> None:
    before = listed(client, "m")
    (own,) = client.get("/upstream/m/v1/models").json()["data"]
    after = listed(client, "m")
    assert after["meta"] == before["meta"]
    assert {name: own["meta"][name] for name in after["meta"]} == after["meta"]
    assert {"n_ctx", "n_ctx_train", "n_params", "size"} <= after["meta"].keys()
    assert after["architecture"] == own["architecture"]
    assert (before["status"]["value"], after["status"]["value"]) == ("unloaded", "loaded")


@pytest.mark.parametrize("name", ["m", "tools"])
def test_what_can_call_tools_is_what_gets_them_into_its_prompt(
    client: httpx.Client, name: str
) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS}
    prompt = client.post("/apply-template", json=body).json()["prompt"]
    for told in (listed(client, name), client.post("/api/show", json={"model": name}).json()):
        assert ("tools" in told["capabilities"]) == ("add" in prompt) == (name == "tools")


def test_a_completion_is_answered_in_its_own_form(client: httpx.Client) -> None:
    own = {"model": "m", "prompt": {"prompt_string": "Hi"}, "n_predict": 2}
    openai = {"model": "m", "prompt": "Hi", "max_tokens": 2}
    for path in ("/completions", "/completion"):
        assert "content" in client.post(path, json=own).json()
    for path in ("/completions", "/v1/completions"):
        assert "choices" in client.post(path, json=openai).json()


def test_a_vector_for_each_token_comes_in_llama_cpp_s_form(client: httpx.Client) -> None:
    for fields in ({"input": "Hi there"}, {"content": "Hi there"}):
        (entry,) = client.post("/embeddings", json={"model": "vectors", **fields}).json()
        assert len(entry["embedding"]) == 2
    refused = client.post("/v1/embeddings", json={"model": "vectors", "input": "Hi there"})
    assert refused.status_code == 400


def test_a_response_s_tokens_are_counted(client: httpx.Client) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
    tokens = client.post("/v1/chat/completions/input_tokens", json=chat).json()["input_tokens"]
    for path in ("/v1/responses/input_tokens", "/responses/input_tokens"):
        answer = client.post(path, json={"model": "m", "input": "Hello there"})
        assert answer.json() == {"object": "response.input_tokens", "input_tokens": tokens}


def test_an_engine_s_own_questions_are_answered(client: httpx.Client) -> None:
    assert client.get("/lora-adapters?model=m").json() == []
    assert client.post("/lora-adapters?model=m", json=[]).json() == {"success": True}
    saved = client.post("/slots/0?action=save&model=m", json={"filename": "a.bin"})
    assert saved.status_code == 501  # the engine's own words: it has no folder for them
    assert client.get("/v1/health").json() == {"status": "ok"}
