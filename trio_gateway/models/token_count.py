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
# Prose has 3 to 5 bytes a token, long runs of blanks up to 16 and more.
MOST_BYTES_PER_TOKEN = 16


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


def _chat_bounds(fields: RequestFields) -> Bounds:
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in prompt_texts(fields))
    tools = len(fields.tools) if isinstance(fields.tools, list) else 0
    images = _count_images(fields.messages)
    return Bounds(
        size // MOST_BYTES_PER_TOKEN + images * IMAGE_TOKENS[0],
        size
        + TEMPLATE_TOKENS
        + message_count(fields) * TOKENS_PER_MESSAGE
        + tools * TOKENS_PER_TOOL
        + images * IMAGE_TOKENS[1],
    )


def _prompts_bounds(prompts: Any) -> Bounds:
    if isinstance(prompts, str):
        size = len(prompts.encode("utf-8", "surrogatepass"))
        return Bounds(size // MOST_BYTES_PER_TOKEN, size + MARGIN_TOKENS)
    if isinstance(prompts, list) and prompts:
        if any(isinstance(p, int) for p in prompts):  # token ids, perhaps with strings between
            words = [_prompts_bounds(p) for p in prompts if not isinstance(p, int)]
            ids = len(prompts) - len(words)
            return Bounds(
                ids + sum(b.lower for b in words),
                ids + sum(b.upper for b in words) + 1,  # llama.cpp may put a BOS in front
            )
        each = [_prompts_bounds(p) for p in prompts]
        return Bounds(max(b.lower for b in each), max(b.upper for b in each))
    if isinstance(prompts, dict):  # llama.cpp's {"prompt_string": …, "multimodal_data": […]}
        text = _prompts_bounds(prompts.get("prompt_string", ""))
        media = prompts.get("multimodal_data")
        images = len(media) if isinstance(media, list) else 0
        return Bounds(text.lower + images * IMAGE_TOKENS[0], text.upper + images * IMAGE_TOKENS[1])
    return Bounds(0, MARGIN_TOKENS)


def _collect_message(message: Any, texts: list[str]) -> None:
    """Every string of a message except media: roles, names, text parts, tool calls."""
    if isinstance(message, str):
        texts.append(message)
    elif isinstance(message, list):
        for part in message:
            _collect_message(part, texts)
    elif isinstance(message, dict) and not _is_media(message):
        for value in message.values():
            _collect_message(value, texts)


def _is_media(part: dict[str, Any]) -> bool:
    return any(key in part for key in ("image_url", "input_audio", "video_url", "file"))


def _count_images(value: Any) -> int:
    if isinstance(value, list):
        return sum(_count_images(entry) for entry in value)
    if isinstance(value, dict):
        return 1 if _is_media(value) else _count_images(value.get("content"))
    return 0
