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

MARGIN_TOKENS = 16

# Default of the model key `image_tokens`; the least that vision models spend on an image.
IMAGE_TOKENS = 1024
LEAST_IMAGE_TOKENS = 64
MEDIA_KEYS = frozenset({"image_url", "input_audio", "video_url", "file"})
_PLAIN, _TEXT_PART = frozenset({"role", "content"}), frozenset({"type", "text"})
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


class RequestFields(msgspec.Struct, frozen=True):
    """The fields that the gateway itself needs; everything else in a body is only passed on.

    Values are as the client sent them: any JSON type, None where absent.
    """

    model: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    tools: Any = None
    chat_template_kwargs: Any = None
    tool_choice: Any = None
    response_format: Any = None
    reasoning_effort: Any = None
    reasoning_format: Any = None
    add_generation_prompt: Any = None
    continue_final_message: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n_predict: Any = None


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
        tools = tool_count(fields)
        total = self.base + self.per_message * message_count(fields)
        return total + (self.first_tool + self.per_tool * (tools - 1) if tools else 0)


class Bounds(msgspec.Struct, frozen=True):
    """The number of prompt tokens lies between the two."""

    lower: int
    upper: int


def upper_bound(
    endpoint: str, fields: RequestFields, overhead: Overhead, image_tokens: int = IMAGE_TOKENS
) -> int:
    """Never fewer tokens than the prompt has."""
    if endpoint != "chat/completions":
        return _most_of_prompts(_prompts(endpoint, fields), image_tokens)
    total = overhead.of(fields) + image_count(fields) * image_tokens
    if fields.tools and not overhead.ignores_tools:
        total += _structure_size(fields.tools)
    for message in _messages(fields):
        total += _message_size(message)
    return total


def lower_bound(endpoint: str, fields: RequestFields, image_tokens: int = IMAGE_TOKENS) -> int:
    """Never more tokens than the prompt has."""
    least_image = min(LEAST_IMAGE_TOKENS, image_tokens)
    if endpoint != "chat/completions":
        return _least_of_prompts(_prompts(endpoint, fields), least_image)
    total = image_count(fields) * least_image
    for message in _messages(fields):
        for text in _texts_of(message.get("content")):
            if not (message.get("role") == "assistant" and _REASONING_ENDS in text):
                total += _least_of_text(text)
    return total


def answer_tokens(endpoint: str, fields: RequestFields) -> int | None:
    """The answer's maximum that the request names; None: it names none."""
    if endpoint == "embeddings":
        return 0
    for value in (fields.max_completion_tokens, fields.max_tokens, fields.n_predict):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


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


# -- what a request is made of ----------------------------------------------------------------


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


def tool_count(fields: RequestFields) -> int:
    return len(fields.tools) if isinstance(fields.tools, list) else 0


def image_count(fields: RequestFields) -> int:
    """Media of any kind in the messages."""
    images, left = 0, [fields.messages]
    for value in left:  # it grows
        if isinstance(value, dict):
            if not MEDIA_KEYS.isdisjoint(value):
                images += 1
            value = value.get("content")
            if isinstance(value, dict):
                left.append(value)
        if isinstance(value, list):
            left += value
    return images


def is_plain(endpoint: str, fields: RequestFields) -> bool:
    """Whether an answer's `usage` is about just what was counted: one prompt, and no media."""
    if endpoint == "chat/completions":
        return not image_count(fields)
    prompt = fields.prompt
    ids = isinstance(prompt, list) and all(isinstance(p, int) for p in prompt)
    return endpoint == "completions" and (isinstance(prompt, str) or ids)


def without_media(messages: Any) -> Any:
    """The messages without their images and other media, which no text counter is to see."""
    if not isinstance(messages, list):
        return messages
    return [_without_media(m) if isinstance(m, dict) else m for m in messages]


def _without_media(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = [p for p in content if not (isinstance(p, dict) and MEDIA_KEYS & p.keys())]
        message = {**message, "content": content}
    return {key: value for key, value in message.items() if key not in MEDIA_KEYS}


def turn_size(fields: RequestFields) -> int | None:
    """Bytes of the last message's text, which this turn adds together with its answer; None for the
    first turn of a conversation: what that has may be of any size, once."""
    messages = _messages(fields)
    if "assistant" not in [message.get("role") for message in messages]:
        return None
    return sum(map(_size, _texts_of(messages[-1].get("content"))))


def _messages(fields: RequestFields) -> list[dict[str, Any]]:
    if not isinstance(fields.messages, list):
        return []
    return [m for m in fields.messages if isinstance(m, dict)]


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _message_size(message: dict[str, Any]) -> int:
    """Bytes of a message as a template may render it: its texts, and everything else as JSON."""
    content, role = message.get("content"), message.get("role", "")
    size = _size(role if isinstance(role, str) else str(role))
    unknown = None
    if isinstance(content, str):
        size += _size(content)
    elif isinstance(content, list):
        size += sum(map(_size, _texts_of(content)))
        unknown = [part for part in content if not _is_known_part(part)]
    else:
        unknown = content
    if not unknown and message.keys() <= _PLAIN:
        return size
    rest = {k: v for k, v in message.items() if k not in _PLAIN and k not in MEDIA_KEYS}
    if unknown is not None:
        rest["content"] = unknown
    return size + _structure_size(rest) if any(rest.values()) else size


def _is_known_part(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and (part.keys() <= _TEXT_PART or not MEDIA_KEYS.isdisjoint(part))
    )


def _texts_of(content: Any) -> list[str]:
    """The texts of a message's content that surely are part of the prompt."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    return [
        text
        for part in content
        if isinstance(text := part.get("text") if isinstance(part, dict) else part, str)
    ]


def _structure_size(value: Any) -> int:
    """Bytes of the widest form in which templates write JSON: indented by four.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    return len(msgspec.json.format(msgspec.json.encode(value), indent=4))


def _least_of_text(text: str) -> int:
    # As bytes.split() finds them, but it would make an object of each: three times slower.
    data = text.encode("utf-8", "surrogatepass").translate(_AS_WORDS, _CONTROLS)
    words = data.count(b" x") + data.startswith(b"x")
    return max(words, len(data) // MOST_BYTES_PER_TOKEN)


# -- prompts without a template ---------------------------------------------------------------


def _prompts(endpoint: str, fields: RequestFields) -> Any:
    return fields.input if endpoint == "embeddings" else fields.prompt


def _most_of_prompts(prompts: Any, image_tokens: int, depth: int = 0) -> int:
    if isinstance(prompts, str):
        return _size(prompts) + MARGIN_TOKENS
    if isinstance(prompts, list) and prompts and depth < PROMPT_LEVELS:
        texts = [p for p in prompts if not isinstance(p, int)]
        each = [_most_of_prompts(p, image_tokens, depth + 1) for p in texts]
        # With token ids it is one sequence, perhaps with texts between; llama.cpp may put a BOS in
        # front.
        ids = len(prompts) - len(texts)
        return ids + sum(each) + 1 if ids else max(each)
    if isinstance(prompts, dict) and depth < PROMPT_LEVELS:
        text = _most_of_prompts(prompts.get("prompt_string", ""), image_tokens, PROMPT_LEVELS)
        return text + _media_of_prompt(prompts) * image_tokens
    return MARGIN_TOKENS


def _least_of_prompts(prompts: Any, image_tokens: int, depth: int = 0) -> int:
    if isinstance(prompts, str):
        return _least_of_text(prompts)
    if isinstance(prompts, list) and prompts and depth < PROMPT_LEVELS:
        texts = [p for p in prompts if not isinstance(p, int)]
        each = [_least_of_prompts(p, image_tokens, depth + 1) for p in texts]
        ids = len(prompts) - len(texts)
        return ids + sum(each) if ids else max(each)
    if isinstance(prompts, dict) and depth < PROMPT_LEVELS:
        text = _least_of_prompts(prompts.get("prompt_string", ""), image_tokens, PROMPT_LEVELS)
        return text + _media_of_prompt(prompts) * image_tokens
    return 0


def _media_of_prompt(prompt: dict[str, Any]) -> int:
    """Of llama.cpp's {"prompt_string": …, "multimodal_data": […]}."""
    media = prompt.get("multimodal_data")
    return len(media) if isinstance(media, list) else 0


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
