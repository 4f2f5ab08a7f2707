"""Ollama's chat messages as OpenAI's: tool calls get ids, images become data URLs. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import msgspec

from trio_gateway.server.api.errors import ApiError

Message = dict[str, Any]


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | None = None


class _ToolCall(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None


class OllamaMessage(msgspec.Struct, frozen=True):
    """`images`: base64. `tool_name`, `tool_call_id`: of the call that a tool's message answers."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def openai_messages(messages: Sequence[OllamaMessage]) -> list[Message]:
    """The messages for `chat/completions`.

    Raises:
        ApiError: 400, something that is not an image, or is of an unknown format.
    """
    calls = _Calls(messages)
    return [_message(message, index, calls) for index, message in enumerate(messages)]


def _message(message: OllamaMessage, index: int, calls: _Calls) -> Message:
    text = message.content or ""
    translated: Message = {"role": message.role, "content": text}
    if message.images:
        where = f"messages[{index}].images"
        # As Ollama does it: the images come before the text.
        parts: list[Message] = image_parts(message.images, where)
        translated["content"] = [*parts, {"type": "text", "text": text}] if text else parts
    if message.thinking:
        translated["reasoning_content"] = message.thinking
    if message.tool_calls:
        translated["tool_calls"] = [
            {
                "id": calls.add(call),
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": msgspec.json.encode(call.function.arguments or {}).decode(),
                },
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        translated["tool_call_id"] = calls.answered_by(message)
        if message.tool_name:
            translated["name"] = message.tool_name  # some templates write it
    return translated


class _Calls:
    """The ids of tool calls. Clients leave them out, or send what the engine gave.

    Those made up are the same each time a conversation is sent: templates write them into the
    prompt, whose start must not change. Nine letters and digits are what Mistral's templates take.
    """

    def __init__(self, messages: Sequence[OllamaMessage]) -> None:
        given = {call.id for message in messages for call in message.tool_calls or ()}
        given |= {message.tool_call_id for message in messages}
        self._made_up: Iterator[str] = (
            name for number in count() if (name := f"call{number:05d}") not in given
        )
        self._open: list[tuple[str, str]] = []  # id and function of calls without an answer

    def add(self, call: _ToolCall) -> str:
        call_id = call.id or next(self._made_up)
        self._open.append((call_id, call.function.name))
        return call_id

    def answered_by(self, message: OllamaMessage) -> str:
        """By its id, by its name, or the first that has no answer yet."""
        for call_id, name in self._open:
            if message.tool_call_id:
                is_meant = call_id == message.tool_call_id
            else:
                is_meant = name == message.tool_name or not message.tool_name
            if is_meant:
                self._open.remove((call_id, name))
                return call_id
        return message.tool_call_id or next(self._made_up)


# -- images -------------------------------------------------------------------------------------

_SNIFFED_CHARACTERS = 24  # base64 of 18 bytes
_MAGICS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


def image_parts(images: Sequence[str], where: str) -> list[Message]:
    """Content parts with data URLs. `where`: what the images are called in an error.

    Raises:
        ApiError: 400
    """
    return [
        {"type": "image_url", "image_url": {"url": _data_url(image, f"{where}[{index}]")}}
        for index, image in enumerate(images)
    ]


def _data_url(image: str, where: str) -> str:
    if image.startswith("data:image/") and ";base64," in image[:64]:
        return image
    try:
        head = binascii.a2b_base64(image[:_SNIFFED_CHARACTERS], strict_mode=True)
    except (binascii.Error, ValueError):
        message = f"`{where}` is not an image in base64; URLs and file names are not followed"
        raise ApiError(400, message, param="images") from None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return f"data:image/webp;base64,{image}"
    for magic, media_type in _MAGICS:
        if head.startswith(magic):
            return f"data:{media_type};base64,{image}"
    message = f"`{where}` is not a PNG, JPEG, GIF, BMP or WebP image"
    raise ApiError(400, message, param="images")
