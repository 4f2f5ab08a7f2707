"""A request that is too long for its model, as each API's clients expect to be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from trio_gateway.models.need.excess import (
    Excess,
    Terms,
    anthropic_sentence,
    llamacpp_sentence,
    sentence,
)
from trio_gateway.server.api.endpoint import Endpoint, Family, Need
from trio_gateway.server.api.errors import ApiError, anthropic_error

# The fields that say how long an answer may be, of any API.
ANSWER_LIMITS = ("n_predict", "max_completion_tokens", "max_output_tokens", "max_tokens")
# Those that bear on an answer; the one that wins, if there are several, comes first.
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")
_LIMITS_OF: Mapping[Need, tuple[str, ...]] = {
    Need.RESPONSES: ANSWER_LIMITS,
    Need.MESSAGES: ("max_tokens",),
}
CODE = "context_length_exceeded"
_LLAMACPP_TYPE = "exceed_context_size_error"
_OLLAMA_LIMIT = "num_predict"
_TEXTS: Mapping[Need, str] = {
    Need.INPUT: "largest input",
    Need.CONTENT: "largest content",
    Need.RERANK: "query with the largest document",
}


class ContextTooLong(ApiError):
    """400: no context is large enough for the prompt, or for the prompt and its answer. `message`
    is what OpenAI's and Ollama's clients get; llama.cpp's and Anthropic's get their own words."""

    def __init__(self, excess: Excess, terms: Terms, param: str | None) -> None:
        super().__init__(400, sentence(excess, terms), code=CODE, param=param)
        self.excess, self._terms = excess, terms

    def body(self, family: Family = Family.OPENAI) -> dict[str, Any]:
        if family is Family.ANTHROPIC:
            return anthropic_error(self.status, anthropic_sentence(self.excess, self._terms))
        body = super().body(family)
        if family is Family.LLAMACPP:
            body["error"] |= {
                "message": llamacpp_sentence(self.excess, self._terms),
                "type": _LLAMACPP_TYPE,
                "n_prompt_tokens": self.excess.prompt,
                "n_ctx": self.excess.context,
            }
        return body


def terms_of(
    endpoint: Endpoint, family: Family, sent: Callable[[str], bool], fixed: Collection[str] = ()
) -> Terms:
    """`family`: whose client asked. `sent`: whether its request has a field of this name. `fixed`:
    fields that the configuration sets, whatever the client sends."""
    limits = _LIMITS_OF.get(endpoint.need, _LIMITS)
    limit = next(filter(sent, limits), limits[-1])
    name = _OLLAMA_LIMIT if family is Family.OLLAMA else limit
    return Terms(name, limit in fixed, _TEXTS.get(endpoint.need, "prompt"))
