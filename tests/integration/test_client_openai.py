"""The `openai` package against the gateway: what its users call, and the errors that they catch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterator
from typing import Any

import openai
import pytest
from openai.types import Model

from tests.support.harness import CLIENT_KEY, STOPPED_AT, GatewayProcess
from tests.support.tool_answers import ARGUMENTS, OPENAI_TOOL

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

QUESTION: Any = [{"role": "user", "content": "Name the capital city of France."}]
SHORT: dict[str, Any] = {"temperature": 0, "max_tokens": 16}


@pytest.fixture
def client(client_gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    url = f"{client_gateway.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, **SHORT)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "smollm2"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        **SHORT,
    )
    chunks = list(stream)
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3
    assert {c.model for c in chunks} == {"smollm2"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3


def test_the_stream_helper_puts_the_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="smollm2", messages=QUESTION, **SHORT) as stream:
        stream.until_done()
        assert "Paris" in (stream.get_final_completion().choices[0].message.content or "")


def test_a_stream_that_is_left_early_leaves_the_engine_free(
    client: openai.OpenAI, client_gateway: GatewayProcess
) -> None:
    story: Any = [{"role": "user", "content": "Write a long story."}]
    begun = client_gateway.lines_so_far()
    with client.chat.completions.create(
        model="smollm2", messages=story, max_tokens=1500, stream=True,
        extra_body={"ignore_eos": True},
    ) as stream:  # fmt: skip
        next(iter(stream))
    assert int(client_gateway.wait_for_line(STOPPED_AT, after=begun)[1]) < 1500
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, **SHORT)
    assert answer.choices


def test_an_answer_in_a_given_form(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        temperature=0,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
    )
    assert '"Paris"' in (answer.choices[0].message.content or "")


def test_tools_and_the_results_of_calls_reach_the_engine(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ARGUMENTS},
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 31 degrees"}
    messages: Any = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        result,
    ]
    tools: Any = [OPENAI_TOOL]
    answer = client.chat.completions.create(
        model="smollm2", messages=messages, tools=tools, **SHORT
    )
    assert "sunny" in (answer.choices[0].message.content or "")


def test_a_tool_call(client: openai.OpenAI) -> None:
    tools: Any = [OPENAI_TOOL]
    answer = client.chat.completions.create(model="caller", messages=QUESTION, tools=tools)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", ARGUMENTS)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.model == "caller"


def test_a_streamed_tool_call(client: openai.OpenAI) -> None:
    tools: Any = [OPENAI_TOOL]
    with client.chat.completions.stream(model="caller", messages=QUESTION, tools=tools) as stream:
        stream.until_done()
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", ARGUMENTS)


def test_a_response(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="smollm2",
        instructions="Answer briefly.",
        input="Name the capital city of France.",
        temperature=0,
        max_output_tokens=16,
    )
    assert "Paris" in answer.output_text
    assert answer.status == "completed"
    assert answer.model == "smollm2"


def test_a_streamed_response(client: openai.OpenAI) -> None:
    stream = client.responses.create(
        model="smollm2", input=QUESTION, temperature=0, max_output_tokens=16, stream=True
    )
    events = list(stream)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert "Paris" in text
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text
    assert last.response.model == "smollm2"


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model="smollm2", prompt="1, 2, 3, 4,", temperature=0, max_tokens=6
    )
    assert "5" in whole.choices[0].text
    stream = client.completions.create(
        model="smollm2", prompt="1, 2, 3, 4,", temperature=0, max_tokens=6, stream=True
    )
    assert "".join(c.choices[0].text for c in stream) == whole.choices[0].text


def test_embeddings_in_the_client_s_own_encoding(client: openai.OpenAI) -> None:
    """By default the client asks for base64 and decodes it itself."""
    texts = ["a cat", "a kitten", "bookkeeping"]
    packed = client.embeddings.create(model="embedder", input=texts)
    assert [len(v.embedding) for v in packed.data] == [576] * 3
    plain = client.embeddings.create(model="embedder", input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-3)


def test_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["smollm2", "embedder", "caller"]
    found = client.models.retrieve("embedder")
    assert (found.id, found.object) == ("embedder", "model")


def test_the_async_client(client_gateway: GatewayProcess) -> None:
    asyncio.run(_ask_async(f"{client_gateway.base_url}/v1"))


async def _ask_async(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model="smollm2", messages=QUESTION, **SHORT)
        assert "Paris" in (answer.choices[0].message.content or "")
        stream = await client.chat.completions.create(
            model="smollm2", messages=QUESTION, stream=True, **SHORT
        )
        pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "Paris" in "".join(pieces)
        vectors, models = await asyncio.gather(
            client.embeddings.create(model="embedder", input="a cat"), _ids(client.models.list())
        )
        assert len(vectors.data[0].embedding) == 576
        assert models == ["smollm2", "embedder", "caller"]


async def _ids(models: AsyncIterable[Model]) -> list[str]:
    return [m.id async for m in models]


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean") as caught:
        client.chat.completions.create(model="smolm", messages=QUESTION)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("smolm")


def test_a_prompt_that_fits_no_variant_is_a_bad_request(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert "2048" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="smollm2", input="word " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_a_wrong_type_is_a_bad_request(client: openai.OpenAI) -> None:
    messages: Any = "Hi"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="smollm2", messages=messages)


def test_an_endpoint_that_a_model_has_not_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="embeddings"):
        client.embeddings.create(model="smollm2", input="a cat")
    with pytest.raises(openai.BadRequestError):
        client.images.generate(model="smollm2", prompt="a cat")


def test_a_wrong_key_is_an_authentication_error(keyed_gateway: GatewayProcess) -> None:
    url = f"{keyed_gateway.base_url}/v1"
    with (
        openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        wrong.models.list()
    assert "sk-wrong" not in str(caught.value)
    with openai.OpenAI(base_url=url, api_key=CLIENT_KEY, max_retries=0) as right:
        assert [m.id for m in right.models.list()] == ["fake"]


def test_a_gateway_that_is_not_there_is_a_connection_error() -> None:
    url = "http://127.0.0.1:9/v1"
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()
