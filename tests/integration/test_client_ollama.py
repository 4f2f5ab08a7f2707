"""The ollama client from PyPI, against the gateway with the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import ollama
import pytest
from ollama import Message

from tests.support.harness import (
    GatewayProcess,
    configuration,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

QUESTION = {"role": "user", "content": "Name the capital city of France."}
WEATHER = Message(role="user", content="What is the weather in Graz?")
CITY = {"city": {"type": "string"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "required": ["city"], "properties": CITY},
    },
}
EXACT = {"temperature": 0, "num_predict": 16}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = configuration(
        model("smollm2", real_variant(1024), real_variant(4096)),
        model(
            "embedder",
            real_variant(2048, "--embeddings", "--pooling", "mean"),
            engine="presets.engines.llamacpp_secondary",
        ),
    )
    with running_gateway(tmp_path_factory.mktemp("ollama"), config) as running:
        yield running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[ollama.Client]:
    with ollama.Client(gateway.base_url, trust_env=False) as client:
        yield client


def test_a_chat(client: ollama.Client) -> None:
    answer = client.chat("smollm2", [QUESTION], options=EXACT)
    assert "Paris" in (answer.message.content or "")
    assert (answer.model, answer.done, answer.done_reason) == ("smollm2", True, "stop")
    assert answer.prompt_eval_count
    assert answer.eval_count
    assert answer.prompt_eval_count > 10
    assert answer.total_duration
    assert answer.eval_duration
    assert answer.total_duration > answer.eval_duration > 0


def test_a_streamed_chat(client: ollama.Client) -> None:
    *parts, last = client.chat("smollm2:latest", [QUESTION], options=EXACT, stream=True)
    assert "Paris" in "".join(part.message.content or "" for part in parts)
    assert len(parts) > 3
    assert not any(part.done for part in parts)
    assert (last.done, last.model) == (True, "smollm2:latest")
    assert last.eval_count == pytest.approx(len(parts), abs=2)


def test_generate_and_raw(client: ollama.Client) -> None:
    answer = client.generate("smollm2", "Name the capital city of France.", options=EXACT)
    assert "Paris" in (answer.response or "")
    parts = client.generate("smollm2", "1, 2, 3, 4,", raw=True, options=EXACT, stream=True)
    assert "5, 6" in "".join(part.response or "" for part in parts)


def test_an_answer_in_a_schema(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    }
    answer = client.chat("smollm2", [QUESTION], format=schema, options=EXACT)
    assert answer.message.content is not None
    assert '"city"' in answer.message.content


def test_what_a_tool_said_is_part_of_the_chat(client: ollama.Client) -> None:
    call = Message.ToolCall(
        function=Message.ToolCall.Function(name="get_weather", arguments={"city": "Graz"})
    )
    history = [
        WEATHER,
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_name="get_weather", content="Graz: 3 degrees"),
    ]
    answer = client.chat("smollm2", history, tools=[TOOL], options=EXACT)
    assert "3 degrees" in (answer.message.content or "")


def test_embeddings(client: ollama.Client) -> None:
    answer = client.embed("embedder", ["a cat", "a kitten", "bookkeeping"])
    assert [len(vector) for vector in answer.embeddings] == [576] * 3
    assert answer.prompt_eval_count
    assert len(client.embeddings("embedder", "a cat").embedding) == 576
    assert len(client.embed("embedder", "a cat", dimensions=64).embeddings[0]) == 64


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    first, second = client.list().models
    assert (first.model, second.model) == ("smollm2", "embedder")
    assert first.size is not None
    assert 90e6 < first.size < 110e6
    assert first.details is not None
    assert (first.details.family, first.details.parameter_size) == ("llama", "135M")
    assert first.details.quantization_level == "Q4_1"
    shown = client.show("smollm2")
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 4096
    assert client.show("embedder").capabilities == ["embedding"]
    small = client.show("smollm2:1024").modelinfo
    assert small is not None
    assert small["llama.context_length"] == 1024


def test_num_ctx_and_keep_alive(client: ollama.Client) -> None:
    def loaded() -> list[tuple[str | None, int | None]]:
        return [(m.model, m.context_length) for m in client.ps().models if m.model == "smollm2"]

    client.generate("smollm2", keep_alive=0)
    assert eventually(lambda: not loaded(), 10)
    client.generate("smollm2", options={"num_ctx": 4000})
    assert loaded() == [("smollm2", 4096)]
    client.chat("smollm2", [QUESTION], options=EXACT, keep_alive=-1)
    (pinned,) = (m for m in client.ps().models if m.model == "smollm2")
    assert pinned.expires_at is not None
    assert pinned.expires_at.year > 2300
    client.chat("smollm2", [QUESTION], options=EXACT, keep_alive=0)
    assert eventually(lambda: not loaded(), 10)


def test_errors_are_the_client_s_own(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="did you mean: smollm2") as caught:
        client.chat("smolm", [QUESTION])
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="4096") as caught:
        list(client.generate("smollm2", "word " * 5000, stream=True))
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="does not pull") as caught:
        client.pull("llama3")
    assert caught.value.status_code == 501
    with pytest.raises(ollama.ResponseError, match="embed"):
        client.embed("smollm2", "x")


def test_a_broken_stream_raises(client: ollama.Client, gateway: GatewayProcess) -> None:
    parts = client.generate("smollm2", "Tell a long story.", stream=True)
    next(iter(parts))
    gateway.engine_of("smollm2").kill()
    with pytest.raises(ollama.ResponseError, match="signal 9"):
        list(parts)


async def test_the_async_client(gateway: GatewayProcess) -> None:
    # It runs on trio as well, as httpx does.
    async with ollama.AsyncClient(gateway.base_url, trust_env=False) as client:
        answer = await client.chat("smollm2", [QUESTION], options=EXACT)
        assert "Paris" in (answer.message.content or "")
        stream = await client.chat("smollm2", [QUESTION], options=EXACT, stream=True)
        parts = [part async for part in stream]
        assert parts[-1].done
        assert "Paris" in "".join(part.message.content or "" for part in parts)


def test_curl_as_in_ollama_s_documentation(gateway: GatewayProcess) -> None:
    body = b'{"model": "smollm2", "prompt": "Hi", "stream": false, "options": {"num_predict": 4}}'
    with httpx.Client(base_url=gateway.base_url, trust_env=False, timeout=30) as client:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert client.post("/api/generate", content=body, headers=form).json()["done"]
        assert client.head("/").status_code == 200
