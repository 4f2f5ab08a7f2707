"""The chats that requests of other APIs are counted as, beside the real engine's own counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.harness import configuration, model, real_variant, running_gateway
from trio_gateway.models.need.messages_form import messages_as_chat
from trio_gateway.models.need.responses_form import responses_as_chat

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

TOOL = {"type": "object", "properties": {"a": {"type": "number"}}}
USE = {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}}
MESSAGES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hello there"}]},
    {"system": "Be kind.", "messages": [{"role": "user", "content": "Hello"}]},
    {
        "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One and one?"}]},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Sure?"},
        ],
    },
    {
        "tools": [{"name": "add", "description": "Adds.", "input_schema": TOOL}],
        "messages": [
            {"role": "user", "content": "One and one?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I add."}, USE]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "1", "content": "2"}],
            },
        ],
    },
]
RESPONSES: list[dict[str, Any]] = [
    {"input": "Hello there"},
    {"instructions": "Be kind.", "input": "Hello"},
    {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "One and one?"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Two."}],
            },
            {"role": "user", "content": "Sure?"},
        ]
    },
]


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Asks the engine itself, behind the gateway, for what it counts."""
    config = configuration(model("m", real_variant(2048)), kv_carryover="false")
    with (
        running_gateway(tmp_path_factory.mktemp("forms"), config) as gateway,
        gateway.client() as client,
    ):

        def count(path: str, body: dict[str, Any]) -> int:
            answer = client.post(f"/upstream/m{path}", json=body)
            assert answer.status_code == 200, answer.text
            tokens: int = answer.json()["input_tokens"]
            return tokens

        yield count


def _chat(form: Any) -> dict[str, Any]:
    chat: dict[str, Any] = json.loads(form.body)
    return chat


@pytest.mark.parametrize("request_", MESSAGES)
def test_a_message_has_the_tokens_of_its_chat(counts: Any, request_: dict[str, Any]) -> None:
    chat = _chat(messages_as_chat(request_))
    itself = counts("/v1/messages/count_tokens", {"model": "m", "max_tokens": 1, **request_})
    assert counts("/v1/chat/completions/input_tokens", chat) == itself


@pytest.mark.parametrize("request_", RESPONSES)
def test_a_response_has_the_tokens_of_its_chat(counts: Any, request_: dict[str, Any]) -> None:
    chat = _chat(responses_as_chat(request_))
    itself = counts("/v1/responses/input_tokens", {"model": "m", **request_})
    assert counts("/v1/chat/completions/input_tokens", chat) == itself
