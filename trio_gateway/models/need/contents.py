"""What a request is made of: its fields, the texts and media of its messages, their bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

# A part with one of these, or of one of these types, is no text.
MEDIA_KEYS = frozenset({"image_url", "input_audio", "video_url", "file"})
_MEDIA_TYPES = frozenset({"image", "input_image", "input_file", "document", "input_video"})
_PLAIN, _TEXT_PART = frozenset({"role", "content"}), frozenset({"type", "text"})


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
    json_schema: Any = None
    reasoning_effort: Any = None
    reasoning_format: Any = None
    add_generation_prompt: Any = None
    continue_final_message: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n_predict: Any = None


class ChatSize(msgspec.Struct, frozen=True):
    """`text`: bytes of the messages as a template may render them, their texts and everything else
    as JSON. `media`: of any kind. `messages`: how many there are.

    `turn`: bytes of the last message's text, which this turn adds together with its answer; None
    for the first turn of a conversation: what that has may be of any size, once.
    """

    text: int
    media: int
    turn: int | None
    messages: int


def chat_size(fields: RequestFields) -> ChatSize:
    """Of all messages. Each is looked at once, and what has to be JSON is encoded in one go: of a
    chat of 60 messages that takes half the time.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    given = fields.messages if isinstance(fields.messages, list) else ()
    is_odd = given is not fields.messages  # some of it is in odd places
    size, media, is_answered, content = 0, 0, False, None
    structures: list[Any] = []
    for message in given:
        if not isinstance(message, dict):
            is_odd = True
            continue
        role, content = message.get("role", ""), message.get("content")
        if isinstance(role, str):
            size += len(role) if role.isascii() else text_size(role)
            if role == "assistant":
                is_answered = True
        else:
            size += text_size(str(role))
        unknown = None  # of the content: what is measured as JSON
        if isinstance(content, str):
            size += len(content) if content.isascii() else text_size(content)
            if message.keys() <= _PLAIN:
                continue
        elif isinstance(content, list):
            size += sum(map(text_size, texts_of(content)))
            unknown = [part for part in content if not _is_known_part(part)]
            media += _media_in(content)
        elif content is not None:
            unknown = content
            media += _media_in([content])
        if not unknown and message.keys() <= _PLAIN:
            continue
        if not MEDIA_KEYS.isdisjoint(message):
            media += 1
        rest = {k: v for k, v in message.items() if k not in _PLAIN and k not in MEDIA_KEYS}
        if unknown is not None:
            rest["content"] = unknown
        if any(rest.values()):
            structures.append(rest)
    if is_odd:
        media = image_count(fields)
    if structures:
        size += structure_size(structures)
    turn = sum(map(text_size, texts_of(content))) if is_answered else None
    return ChatSize(size, media, turn, len(given))


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
    return _media_in([fields.messages])


def _media_in(values: list[Any]) -> int:
    media, left = 0, [*values]
    for value in left:  # it grows
        if isinstance(value, dict):
            if is_media(value):
                media += 1
            value = value.get("content")
            if isinstance(value, dict):
                left.append(value)
        if isinstance(value, list):
            left += value
    return media


def is_media(part: dict[str, Any]) -> bool:
    """Of a part; old clients have them in the message itself."""
    kind = part.get("type")
    return not MEDIA_KEYS.isdisjoint(part) or (isinstance(kind, str) and kind in _MEDIA_TYPES)


def messages_of(fields: RequestFields) -> list[dict[str, Any]]:
    if not isinstance(fields.messages, list):
        return []
    return [m for m in fields.messages if isinstance(m, dict)]


def text_of_prompt(prompt: dict[str, Any]) -> str:
    """Of llama.cpp's {"prompt_string": …, "multimodal_data": […]} or {"content": [parts]}."""
    text = prompt.get("prompt_string")
    return text if isinstance(text, str) else "".join(texts_of(prompt.get("content")))


def media_of_prompt(prompt: dict[str, Any]) -> int:
    media = prompt.get("multimodal_data")
    return (len(media) if isinstance(media, list) else 0) + _media_in([prompt.get("content")])


def text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _is_known_part(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and (part.keys() <= _TEXT_PART or is_media(part))
    )


def texts_of(content: Any) -> list[str]:
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


def structure_size(values: Sequence[Any]) -> int:
    """Bytes of each value in the widest form in which templates write JSON, indented by four.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    if not values:
        return 0
    # All in one array, whose own lines and further indentation are then taken off.
    text = msgspec.json.encode(values)
    if len(text) > _WRITTEN_BYTES:
        return _indented_size(text, len(values))
    text = msgspec.json.format(text, indent=4)
    return len(text) + 2 - 2 * len(values) - 4 * text.count(b"\n")


# Larger ones are not written out: with the deepest nesting, 64 MB would become 100 GB.
_WRITTEN_BYTES = 32_768
_MARKS = b"[]{},"
_NO_MARKS = bytes(b for b in range(256) if b not in _MARKS)
_DEEPER = [(mark in b"[{") - (mark in b"]}") for mark in range(256)]


def _indented_size(text: bytes, count: int) -> int:
    """The same by arithmetic, of an array of so many values, written without blanks."""
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # so that each quote is a text's end
    bare = b"0".join(plain.split(b'"')[::2])
    size = len(text) + bare.count(b":")  # a blank after each
    marks = bare.replace(b"[]", b"0").replace(b"{}", b"0").translate(None, _NO_MARKS)
    # After each mark but the last, and before that one, a line begins, indented by its depth.
    lines, depths = len(marks), sum(accumulate(map(_DEEPER.__getitem__, marks)))
    return size + lines + 4 * depths + 2 - 2 * count - 4 * lines


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
