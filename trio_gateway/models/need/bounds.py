"""How many tokens a request needs, as far as the request alone tells. Pure.

An upper and a lower bound come from the size of the text. A byte-level vocabulary never needs more
tokens than bytes; what the chat template adds is an `Overhead`, a cautious one until it was learned
from the model's own counts. And no vocabulary in use has tokens that reach over white space into a
second word, so there are at least as many tokens as words.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trio_gateway.models.need.contents import (
    ChatSize,
    RequestFields,
    chat_size,
    image_count,
    media_of_prompt,
    message_count,
    messages_of,
    structure_size,
    text_of_prompt,
    text_size,
    texts_of,
    tool_count,
)

MARGIN_TOKENS = 16

# Default of the model key `image_tokens`; the least that vision models spend on an image.
IMAGE_TOKENS = 1024
LEAST_IMAGE_TOKENS = 64
# The longest tokens of common vocabularies are runs of blanks: 128 bytes (Llama 3, GPT-4o).
MOST_BYTES_PER_TOKEN = 128
# Some vocabularies (SmolLM2's) have no token for these, and drop them.
_SPACE = b"\t\n\v\f\r "
_CONTROLS = bytes(set(range(32)) - set(_SPACE)) + b"\x7f"
_AS_WORDS = bytes(ord(" ") if byte in _SPACE else ord("x") for byte in range(256))
# A list of prompts of ids and strings: no engine takes a deeper one.
PROMPT_LEVELS = 3
# Default of the model key `min_answer_tokens`, and the share of a small context that it may take.
MIN_ANSWER_TOKENS = 512
MIN_ANSWER_SHARE = 4
# Templates drop an assistant's earlier reasoning from the prompt: such a text may add nothing.
_REASONING_ENDS = "</think>"


class Overhead(msgspec.Struct, frozen=True):
    """Tokens that a chat template adds: once, for each message, with the first tool, for each tool.

    The defaults are above what the templates of the common model families (ChatML, Llama 3, Gemma,
    Mistral, Qwen 3 with tools) were seen to add.
    """

    base: int = 256
    per_message: int = 16
    first_tool: int = 64
    per_tool: int = 64

    @property
    def ignores_tools(self) -> bool:
        """Whatever a template writes of a tool is a token at least."""
        return self.first_tool == self.per_tool == 0

    def of(self, fields: RequestFields) -> int:
        """For a chat."""
        return self.of_so_many(message_count(fields), tool_count(fields))

    def of_so_many(self, messages: int, tools: int) -> int:
        total = self.base + self.per_message * messages
        return total + (self.first_tool + self.per_tool * (tools - 1) if tools else 0)


class Bounds(msgspec.Struct, frozen=True):
    """The number of prompt tokens lies between the two."""

    lower: int
    upper: int


def upper_bound(
    endpoint: str,
    fields: RequestFields,
    overhead: Overhead,
    image_tokens: int = IMAGE_TOKENS,
    size: ChatSize | None = None,
) -> int:
    """Never fewer tokens than the prompt has. `size`: that of the chat, if it is known."""
    if endpoint != "chat/completions":
        return _most_of_prompts(_prompts(endpoint, fields), image_tokens)
    if size is None:
        size = chat_size(fields)
    total = size.text + size.media * image_tokens
    if not fields.tools:
        return total + overhead.of_so_many(size.messages, 0)
    if not overhead.ignores_tools:
        total += structure_size([fields.tools])
    return total + overhead.of_so_many(size.messages, tool_count(fields))


def lower_bound(endpoint: str, fields: RequestFields, image_tokens: int = IMAGE_TOKENS) -> int:
    """Never more tokens than the prompt has."""
    least_image = min(LEAST_IMAGE_TOKENS, image_tokens)
    if endpoint != "chat/completions":
        return _least_of_prompts(_prompts(endpoint, fields), least_image)
    total = image_count(fields) * least_image
    for message in messages_of(fields):
        for text in texts_of(message.get("content")):
            if not (message.get("role") == "assistant" and _REASONING_ENDS in text):
                total += least_of_text(text)
    return total


def answer_tokens(endpoint: str, fields: RequestFields) -> int | None:
    """The answer's maximum that the request names; None: it names none. Of several, the one that
    llama.cpp goes by, also if that says that there is no maximum."""
    if endpoint == "embeddings":
        return 0
    most = fields.n_predict
    if type(most) is not int:  # JSON's true is none
        most = fields.max_completion_tokens
    if type(most) is not int:
        most = fields.max_tokens
    return most if type(most) is int and most >= 0 else None


def least_answer(min_answer_tokens: int | None, largest_context: int) -> int:
    """What an answer without a maximum gets at least, by the model's key of this name."""
    if min_answer_tokens is not None:
        return min_answer_tokens
    return max(min(MIN_ANSWER_TOKENS, largest_context // MIN_ANSWER_SHARE), 1)


def need_of(
    prompt: int, answer: int | None, default_answer: int, largest_context: int, least: int = 1
) -> int:
    """The tokens that a request needs in all.

    Without a maximum of its own the answer gets `default_answer`, but no more than what the prompt
    leaves of the largest context, and never fewer than `least`.
    """
    if answer == 0:
        return prompt  # nothing is generated: there is nothing to leave a margin for
    if answer is None:
        left = largest_context - prompt - MARGIN_TOKENS
        answer = max(min(default_answer, left), least)
    return prompt + answer + MARGIN_TOKENS


def with_room(need: int, headroom: float, average_turn: int) -> int:
    """What an engine should hold that is started for this need: room for growth by a share, or for
    one more turn of a conversation, whichever is more."""
    return need + max(math.ceil(need * headroom), average_turn)


def is_plain(endpoint: str, fields: RequestFields, size: ChatSize) -> bool:
    """Whether an answer's `usage` is about just what was counted: one prompt, and no media."""
    if endpoint == "chat/completions":
        return not size.media
    prompt = fields.prompt
    ids = isinstance(prompt, list) and all(isinstance(p, int) for p in prompt)
    return endpoint == "completions" and (isinstance(prompt, str) or ids)


def most_of_prompt(prompt: Any, image_tokens: int = IMAGE_TOKENS) -> int:
    """Of one out of several."""
    return _most_of_prompts(prompt, image_tokens, 1)


def least_of_text(text: str) -> int:
    """Never more tokens than the text has."""
    # As bytes.split() finds them, but it would make an object of each: three times slower.
    data = text.encode("utf-8", "surrogatepass").translate(_AS_WORDS, _CONTROLS)
    words = data.count(b" x") + data.startswith(b"x")
    return max(words, len(data) // MOST_BYTES_PER_TOKEN)


# -- prompts without a template ---------------------------------------------------------------


def _prompts(endpoint: str, fields: RequestFields) -> Any:
    return fields.input if endpoint == "embeddings" else fields.prompt


def _most_of_prompts(prompts: Any, image_tokens: int, depth: int = 0) -> int:
    if isinstance(prompts, str):
        return text_size(prompts) + MARGIN_TOKENS
    if isinstance(prompts, list) and prompts and depth < PROMPT_LEVELS:
        texts = [p for p in prompts if not isinstance(p, int)]
        each = [_most_of_prompts(p, image_tokens, depth + 1) for p in texts]
        # With token ids it is one sequence, perhaps with texts between; llama.cpp may put a BOS in
        # front.
        ids = len(prompts) - len(texts)
        return ids + sum(each) + 1 if ids else max(each)
    if isinstance(prompts, dict) and depth < PROMPT_LEVELS:
        text = _most_of_prompts(text_of_prompt(prompts), image_tokens, PROMPT_LEVELS)
        return text + media_of_prompt(prompts) * image_tokens
    return MARGIN_TOKENS


def _least_of_prompts(prompts: Any, image_tokens: int, depth: int = 0) -> int:
    if isinstance(prompts, str):
        return least_of_text(prompts)
    if isinstance(prompts, list) and prompts and depth < PROMPT_LEVELS:
        texts = [p for p in prompts if not isinstance(p, int)]
        each = [_least_of_prompts(p, image_tokens, depth + 1) for p in texts]
        ids = len(prompts) - len(texts)
        return ids + sum(each) if ids else max(each)
    if isinstance(prompts, dict) and depth < PROMPT_LEVELS:
        text = _least_of_prompts(text_of_prompt(prompts), image_tokens, PROMPT_LEVELS)
        return text + media_of_prompt(prompts) * image_tokens
    return 0
