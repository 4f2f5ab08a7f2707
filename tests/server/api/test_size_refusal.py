"""What engines and sites say of a request that is too long for them, in their own words."""

from __future__ import annotations

import json

import pytest

from trio_gateway.server.api.size_refusal import SizeRefusal, size_refusal

SAID = {
    "llama.cpp": (
        "request (5031 tokens) exceeds the available context size (4096 tokens), try increasing it"
    ),
    "vLLM": (
        "This model's maximum context length is 4096 tokens. However, your request has 5031 input "
        "tokens. Please reduce the length of the input messages."
    ),
    "vLLM, with an answer": (
        "'max_tokens' is too large: 32. This model's maximum context length is 4096 tokens and "
        "your request has 5031 input tokens (32 > 4096 - 5031)."
    ),
    "vLLM's engine": (
        "The decoder prompt (length 5031) is longer than the maximum model length of 4096. Make "
        "sure that `max_model_len` is no smaller than the number of text tokens."
    ),
    "OpenAI": (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5031 tokens. Please reduce the length of the messages."
    ),
    "OpenAI, with functions": (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5031 tokens (4930 in the messages, 101 in the functions)."
    ),
    "OpenAI, with an answer": (
        "This model's maximum context length is 4096 tokens. However, you requested 5039 tokens "
        "(5031 in the messages, 8 in the completion)."
    ),
    "OpenAI, of a prompt": (
        "This model's maximum context length is 4096 tokens, however you requested 5287 tokens "
        "(5031 in your prompt; 256 for the completion)."
    ),
    "SGLang": ("The input (5031 tokens) is longer than the model's context length (4096 tokens)."),
    "SGLang, with an answer": (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
        "requested a total of 5039 tokens: 5031 tokens from the input messages and 8 tokens for "
        "the completion."
    ),
    "OpenRouter": (
        "This endpoint's maximum context length is 4096 tokens. However, you requested about 5039 "
        "tokens (5031 of text input, 8 in the output)."
    ),
}


@pytest.mark.parametrize("words", SAID.values(), ids=SAID)
def test_the_sizes_are_found_in_everyones_words(words: str) -> None:
    for body in ({"error": {"message": words, "code": 400}}, {"object": "error", "message": words}):
        assert size_refusal(json.dumps(body).encode()) == SizeRefusal(5031, 4096)


def test_a_server_that_reads_no_further_than_it_has_to_says_how_many_there_are_at_least() -> None:
    """vLLM: 4096 - 65 + 1."""
    words = (
        "This model's maximum context length is 4096 tokens. However, you requested 65 output "
        "tokens and your prompt contains at least 4032 input tokens, for a total of at least 4097 "
        "tokens. Please reduce the length of the input prompt or the number of requested output "
        "tokens."
    )
    body = json.dumps({"error": {"message": words}}).encode()
    assert size_refusal(body) == SizeRefusal(4032, 4096, is_least=True)


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens.",
        "your messages resulted in 5031 tokens",
        "the prompt is empty",
        "",
    ],
)
def test_what_names_no_sizes_is_something_else(said: str) -> None:
    assert size_refusal(json.dumps({"error": {"message": said}}).encode()) is None
