"""The `anthropic` package against the gateway: messages, streams, counts, tools, error classes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.harness import CLIENT_KEY, GatewayProcess
from tests.support.optional import client_package
from tests.support.tool_answers import ANTHROPIC_TOOL

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

QUESTION = {"role": "user", "content": "Name the capital city of France."}
GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}  # the package has no such argument
ASK: dict[str, Any] = {"model": "smollm2", "max_tokens": 16, "messages": [QUESTION]}


@pytest.fixture(scope="module")
def anthropic() -> Any:
    return client_package("anthropic")


@pytest.fixture
def client(anthropic: Any, client_gateway: GatewayProcess) -> Iterator[Any]:
    """The base URL has no /v1: this client adds it."""
    url = client_gateway.base_url
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_a_message(client: Any) -> None:
    message = client.messages.create(**ASK, **GREEDY, system="Answer briefly.")
    assert "Paris" in message.content[0].text
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert message.model == "smollm2"
    assert message.usage.output_tokens > 3


def test_a_message_of_blocks_and_turns(client: Any) -> None:
    blocks = [{"type": "text", "text": "Name the capital city of France."}]
    turns = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": "The capital is Paris."},
        {"role": "user", "content": "Say that again."},
    ]
    message = client.messages.create(model="smollm2", max_tokens=16, messages=turns, **GREEDY)
    assert message.content[0].text


def test_a_streamed_message(client: Any) -> None:
    with client.messages.stream(**ASK, **GREEDY) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert "Paris" in text
    assert message.content[0].text == text
    assert (message.stop_reason, message.model) == ("end_turn", "smollm2")
    assert message.usage.output_tokens > 3


def test_the_events_of_a_stream(client: Any) -> None:
    events = [e.type for e in client.messages.create(**ASK, stream=True)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-2:] == ["message_delta", "message_stop"]
    assert events.count("content_block_delta") > 3


def test_the_count_of_tokens_is_what_the_message_uses(client: Any) -> None:
    count = client.messages.count_tokens(model="smollm2", messages=[QUESTION])
    usage = client.messages.create(**ASK).usage
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    tools = client.messages.count_tokens(
        model="smollm2", messages=[QUESTION], system="word " * 50, tools=[ANTHROPIC_TOOL]
    )
    assert tools.input_tokens > count.input_tokens


def test_a_tool_use(client: Any) -> None:
    message = client.messages.create(**{**ASK, "model": "caller"}, tools=[ANTHROPIC_TOOL])
    (block,) = message.content
    assert (block.type, block.name, block.input) == ("tool_use", "get_weather", {"city": "Paris"})
    assert (message.stop_reason, message.model) == ("tool_use", "caller")


def test_a_streamed_tool_use(client: Any) -> None:
    with client.messages.stream(**{**ASK, "model": "caller"}, tools=[ANTHROPIC_TOOL]) as stream:
        message = stream.get_final_message()
    assert message.content[0].input == {"city": "Paris"}
    assert (message.stop_reason, message.model) == ("tool_use", "caller")


def test_the_result_of_a_tool_reaches_the_engine(client: Any) -> None:
    use = {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny, 31 degrees"}
    turns = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    message = client.messages.create(
        model="smollm2", max_tokens=16, messages=turns, tools=[ANTHROPIC_TOOL], **GREEDY
    )
    assert "sunny" in message.content[0].text


def test_a_request_as_coding_agents_send_it(client: Any) -> None:
    """With `?beta=true`, a system text in cached blocks, metadata, tools."""
    system = {"type": "text", "text": "Answer briefly.", "cache_control": {"type": "ephemeral"}}
    request = {**ASK, "system": [system], "metadata": {"user_id": "u"}, "tools": [ANTHROPIC_TOOL]}
    with client.beta.messages.stream(
        **request, betas=["interleaved-thinking-2025-05-14"]
    ) as stream:
        message = stream.get_final_message()
    assert message.content[0].text
    count = client.beta.messages.count_tokens(model="smollm2", messages=[QUESTION], system=[system])
    assert count.input_tokens > 10


def test_the_async_client(anthropic: Any, client_gateway: GatewayProcess) -> None:
    async def ask() -> None:
        async with anthropic.AsyncAnthropic(
            base_url=client_gateway.base_url, api_key="none", max_retries=0
        ) as client:
            assert "Paris" in (await client.messages.create(**ASK, **GREEDY)).content[0].text
            async with client.messages.stream(**ASK, **GREEDY) as stream:
                assert "Paris" in await stream.get_final_text()

    asyncio.run(ask())


def assert_shape(error: Any, kind: str) -> None:
    """As Anthropic gives errors: {"type": "error", "error": {"type", "message"}}."""
    assert error.body["type"] == "error"
    assert error.body["error"]["type"] == kind
    assert error.body["error"]["message"]


def test_an_unknown_model_is_not_found(anthropic: Any, client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError, match="did you mean") as caught:
        client.messages.create(**{**ASK, "model": "smolm"})
    assert_shape(caught.value, "not_found_error")


def test_what_the_engine_or_the_gateway_refuses_is_a_bad_request(
    anthropic: Any, client: Any
) -> None:
    refused: list[dict[str, Any]] = [
        {**ASK, "messages": [{"role": "user", "content": "word " * 5000}]},
        {**ASK, "messages": "Hi"},
        {**ASK, "messages": []},
    ]
    for request in refused:
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.create(**request)
        assert_shape(caught.value, "invalid_request_error")


def test_a_prompt_that_is_too_long_is_named_in_a_stream_too(anthropic: Any, client: Any) -> None:
    long = {"role": "user", "content": "word " * 5000}
    with (
        pytest.raises(anthropic.BadRequestError, match="2048") as caught,
        client.messages.stream(**{**ASK, "messages": [long]}),
    ):
        pass
    assert_shape(caught.value, "invalid_request_error")


def test_a_wrong_key_is_an_authentication_error(
    anthropic: Any, keyed_gateway: GatewayProcess
) -> None:
    url = keyed_gateway.base_url
    for key in ({"api_key": "sk-wrong"}, {"auth_token": "sk-wrong"}):
        with (
            anthropic.Anthropic(base_url=url, max_retries=0, **key) as client,
            pytest.raises(anthropic.AuthenticationError) as caught,
        ):
            client.messages.create(**{**ASK, "model": "fake"})
        assert_shape(caught.value, "authentication_error")
    for key in ({"api_key": CLIENT_KEY}, {"auth_token": CLIENT_KEY}):
        with anthropic.Anthropic(base_url=url, max_retries=0, **key) as client:
            assert [m.id for m in client.models.list()] == ["fake"]
