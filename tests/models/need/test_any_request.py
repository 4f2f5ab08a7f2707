"""Whatever a request has in it is counted as something, by both readers alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.models.need.bounds import IMAGE_TOKENS, Overhead
from trio_gateway.models.need.counted_form import as_is
from trio_gateway.models.need.measured_form import measured
from trio_gateway.models.need.messages_form import messages_as_chat
from trio_gateway.models.need.responses_form import responses_as_chat

KEYS = [
    "type", "role", "content", "text", "name", "arguments", "function", "custom", "tool_calls",
    "call_id", "output", "input", "summary", "source", "image_url", "thinking", "refusal",
    "description", "input_schema", "parameters", "reasoning_content",
]  # fmt: skip
TEXTS = [
    "", "user", "assistant", "system", "tool", "message", "function", "custom", "text",
    "input_text", "image", "input_image", "tool_use", "tool_result", "thinking", "document",
    "reasoning", "function_call", "function_call_output", "custom_tool_call",
    "local_shell_call_output", "base64", "{}",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=30,
)
FIELDS = ["messages", "input", "instructions", "system", "tools", "tool_choice", "reasoning"]


def chat_as_it_is(request: dict[str, Any]) -> Any:
    return as_is("chat/completions", request, msgspec.json.encode(request))


@pytest.mark.parametrize("how", [chat_as_it_is, responses_as_chat, messages_as_chat])
@given(request_=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_anything_is_counted_as_something(how: Any, request_: dict[str, Any]) -> None:
    form = how(request_)
    counted = form.countable()
    assert form.lower_bound() <= form.upper_bound(Overhead())
    elsewhere = measured(form, IMAGE_TOKENS)
    assert elsewhere.upper_bound(Overhead()) == form.upper_bound(Overhead())
    assert elsewhere.lower_bound() == form.lower_bound()
    assert elsewhere.counted == counted.body
    # What is counted has nothing left in it that an engine does not read.
    again = as_is("chat/completions", msgspec.json.decode(counted.body), counted.body).countable()
    assert again is not None
    assert again.body == counted.body
