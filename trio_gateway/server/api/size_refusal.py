"""An engine's own error that says that a request is too long for its context."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from trio_gateway.rawjson import decode_or_none

_TYPE = "exceed_context_size_error"
# What vLLM and SGLang and those that copy their words say, and OpenAI itself.
_CONTEXT = re.compile(
    r"maximum (?:context|model) length (?:is|of) (\d{1,12})\b"
    r"|model's context length \((\d{1,12}) tokens\)"
)
# The first of these that is found: it has all of the prompt, and the next ones perhaps a part.
_PROMPTS = (
    re.compile(r"messages resulted in (\d{1,12}) tokens"),
    re.compile(r"(?:request has|prompt contains)(?: at least)? (\d{1,12}) input tokens"),
    re.compile(r"(\d{1,12})(?: tokens)? (?:in|from) (?:the|your) (?:messages|prompt|input)"),
    re.compile(r"prompt \(length (\d{1,12})\)"),
    re.compile(r"The input \((\d{1,12}) tokens\)"),
    re.compile(r"(\d{1,12}) of text input"),
)
_LLAMACPP = re.compile(
    r"request \((\d{1,12}) tokens\) exceeds the available context size \((\d{1,12}) tokens"
)
_LONGEST_MESSAGE = 4000  # characters


class SizeRefusal(NamedTuple):
    """`prompt_tokens`: what the prompt has; `is_least`: or more, of a server that reads no further
    than leaves no room for the answer. `context`: what a request may have there, prompt and answer
    together; 0: it was not said."""

    prompt_tokens: int
    context: int
    is_least: bool = False


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _Body(msgspec.Struct):
    """vLLM's older errors have no `error` around them."""

    error: _Error | None = None
    message: str = ""


def size_refusal(body: bytes) -> SizeRefusal | None:
    """Of the body of an engine's 400, if that is what it says."""
    said = decode_or_none(body, _Body)
    if said is None:
        return None
    error = said.error or _Error(said.message)
    if error.type == _TYPE and error.n_prompt_tokens > 0:
        return SizeRefusal(error.n_prompt_tokens, error.n_ctx)
    message = error.message[:_LONGEST_MESSAGE]
    if found := _LLAMACPP.search(message):
        return SizeRefusal(int(found[1]), int(found[2]))
    if (context := _CONTEXT.search(message)) is None:
        return None
    found_prompts = (pattern.search(message) for pattern in _PROMPTS)
    if (prompt := next(filter(None, found_prompts), None)) is None:
        return None
    return SizeRefusal(int(prompt[1]), int(context[1] or context[2]), "at least" in prompt[0])
