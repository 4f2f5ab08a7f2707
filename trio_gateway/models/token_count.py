"""How many tokens a request needs, as far as the request alone tells. Pure.

`prompt_bounds` gives a lower and an upper bound from the size of the text. A byte-level
vocabulary never needs more tokens than bytes; what the chat template adds is an allowance.
"""

from __future__ import annotations

from typing import Any

import msgspec

MARGIN_TOKENS = 16

# Allowances for what a chat template adds, above what the templates of the common model families
# (ChatML, Llama 3, Gemma, Mistral, Qwen 3 with tools) were seen to add.
TEMPLATE_TOKENS = 256
TOKENS_PER_MESSAGE = 16
TOKENS_PER_TOOL = 64
# Vision models spend between 64 and about 1,000 tokens on an image of common size.
IMAGE_TOKENS = (64, 1024)
MEDIA_KEYS = frozenset({"image_url", "input_audio", "video_url", "file"})
# Prose has 3 to 5 bytes a token, long runs of blanks up to 16 and more.
MOST_BYTES_PER_TOKEN = 16
# A list of prompts of ids and strings: no engine takes a deeper one.
PROMPT_LEVELS = 3


class RequestFields(msgspec.Struct, frozen=True):
    """The fields that the gateway itself needs; everything else in a body is only passed on.

    Values are as the client sent them: any JSON type, None where absent.
    """

    model: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    tools: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n_predict: Any = None


class Bounds(msgspec.Struct, frozen=True):
    """The number of prompt tokens lies between the two."""

    lower: int
    upper: int


def prompt_bounds(endpoint: str, fields: RequestFields) -> Bounds:
    """Bounds of the prompt's tokens; of several prompts in one request, of the largest."""
    if endpoint == "chat/completions":
        return _chat_bounds(fields)
    return _prompts_bounds(fields.input if endpoint == "embeddings" else fields.prompt)


def answer_tokens(endpoint: str, fields: RequestFields) -> int | None:
    """The answer's maximum that the request names; None: it names none."""
    if endpoint == "embeddings":
        return 0
    for value in (fields.max_completion_tokens, fields.max_tokens, fields.n_predict):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def need_of(prompt: int, answer: int | None, default_answer: int, largest_context: int) -> int:
    """The tokens that a request needs in all.

    Without a maximum of its own the answer gets `default_answer`, but never more than what the
    prompt leaves of the largest context.
    """
    if answer == 0:
        return prompt  # nothing is generated: there is nothing to leave a margin for
    if answer is None:
        left = largest_context - prompt - MARGIN_TOKENS
        answer = max(min(default_answer, left), 1)
    return prompt + answer + MARGIN_TOKENS


def prompt_texts(fields: RequestFields) -> list[str]:
    """All text of a request, for a tokenizer that knows no chat template."""
    texts: list[str] = []
    if isinstance(fields.messages, list):
        for message in fields.messages:
            _collect_message(message, texts)
        if fields.tools:
            texts.append(msgspec.json.encode(fields.tools).decode())
    return texts


def message_count(fields: RequestFields) -> int:
    return len(fields.messages) if isinstance(fields.messages, list) else 0


def image_count(fields: RequestFields) -> int:
    images, left = 0, [fields.messages]
    while left:
        match left.pop():
            case list(parts):
                left.extend(parts)
            case dict(entries):
                images += any(key in entries for key in MEDIA_KEYS)
                left.append(entries.get("content"))
    return images


def _chat_bounds(fields: RequestFields) -> Bounds:
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in prompt_texts(fields))
    tools = len(fields.tools) if isinstance(fields.tools, list) else 0
    images = image_count(fields)
    return Bounds(
        size // MOST_BYTES_PER_TOKEN + images * IMAGE_TOKENS[0],
        size
        + TEMPLATE_TOKENS
        + message_count(fields) * TOKENS_PER_MESSAGE
        + tools * TOKENS_PER_TOOL
        + images * IMAGE_TOKENS[1],
    )


def _prompts_bounds(prompts: Any, depth: int = 0) -> Bounds:
    if isinstance(prompts, str):
        size = len(prompts.encode("utf-8", "surrogatepass"))
        return Bounds(size // MOST_BYTES_PER_TOKEN, size + MARGIN_TOKENS)
    if isinstance(prompts, list) and prompts and depth < PROMPT_LEVELS:
        if any(isinstance(p, int) for p in prompts):  # token ids, perhaps with strings between
            words = [_prompts_bounds(p, depth + 1) for p in prompts if not isinstance(p, int)]
            ids = len(prompts) - len(words)
            return Bounds(
                ids + sum(b.lower for b in words),
                ids + sum(b.upper for b in words) + 1,  # llama.cpp may put a BOS in front
            )
        each = [_prompts_bounds(p, depth + 1) for p in prompts]
        return Bounds(max(b.lower for b in each), max(b.upper for b in each))
    if isinstance(prompts, dict) and depth < PROMPT_LEVELS:
        # llama.cpp's {"prompt_string": …, "multimodal_data": […]}
        text = _prompts_bounds(prompts.get("prompt_string", ""), PROMPT_LEVELS)
        media = prompts.get("multimodal_data")
        images = len(media) if isinstance(media, list) else 0
        return Bounds(text.lower + images * IMAGE_TOKENS[0], text.upper + images * IMAGE_TOKENS[1])
    return Bounds(0, MARGIN_TOKENS)


def _collect_message(message: Any, texts: list[str]) -> None:
    """Every string of a message except media: roles, names, text parts, tool calls."""
    # Not recursive: a client may nest deeper than Python's stack goes.
    left = [message]
    while left:
        match left.pop():
            case str(text):
                texts.append(text)
            case list(parts):
                left.extend(reversed(parts))
            case dict(entries):
                left.extend(v for k, v in reversed(entries.items()) if k not in MEDIA_KEYS)
