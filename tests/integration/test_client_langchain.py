"""`langchain-openai` against the gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.harness import GatewayProcess
from tests.support.optional import client_package
from tests.support.tool_answers import OPENAI_TOOL

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

QUESTION = "Name the capital city of France."


@pytest.fixture(scope="module")
def langchain(client_gateway: GatewayProcess) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGSMITH_TRACING", "false")  # nothing is to be sent anywhere
        yield client_package("langchain_openai")


def chat(langchain: Any, gateway: GatewayProcess, model: str = "smollm2") -> Any:
    url = f"{gateway.base_url}/v1"
    return langchain.ChatOpenAI(
        model=model, base_url=url, api_key="none", temperature=0, max_tokens=16, max_retries=0
    )


def test_invoke(langchain: Any, client_gateway: GatewayProcess) -> None:
    answer = chat(langchain, client_gateway).invoke(QUESTION)
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] > 3
    assert answer.response_metadata["model_name"] == "smollm2"


def test_stream_and_batch(langchain: Any, client_gateway: GatewayProcess) -> None:
    model = chat(langchain, client_gateway)
    pieces = [chunk.content for chunk in model.stream(QUESTION)]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3
    assert all("Paris" in answer.content for answer in model.batch([QUESTION] * 2))


def test_astream(langchain: Any, client_gateway: GatewayProcess) -> None:
    async def ask() -> str:
        model = chat(langchain, client_gateway)
        return "".join([chunk.content async for chunk in model.astream(QUESTION)])

    assert "Paris" in asyncio.run(ask())


def test_a_bound_tool_is_called(langchain: Any, client_gateway: GatewayProcess) -> None:
    model = chat(langchain, client_gateway, "caller").bind_tools([OPENAI_TOOL])
    (call,) = model.invoke(QUESTION).tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})


def test_the_responses_api(langchain: Any, client_gateway: GatewayProcess) -> None:
    model = langchain.ChatOpenAI(
        model="smollm2",
        base_url=f"{client_gateway.base_url}/v1",
        api_key="none",
        temperature=0,
        max_tokens=16,
        use_responses_api=True,
    )
    assert "Paris" in model.invoke(QUESTION).text


def test_embeddings(langchain: Any, client_gateway: GatewayProcess) -> None:
    """Without `check_embedding_ctx_length=False` it would send ids of OpenAI's own tokens."""
    embeddings = langchain.OpenAIEmbeddings(
        model="embedder",
        base_url=f"{client_gateway.base_url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
    )
    assert [len(v) for v in embeddings.embed_documents(["a cat", "a kitten"])] == [576] * 2
    assert len(embeddings.embed_query("a cat")) == 576
