"""The images, sounds and videos of a request, in the words of each API. Pure.

What llama-server takes for one, of October 2026; everything else is for the engine to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from trio_gateway.models.medium import Medium, Refusals
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.errors import ApiError


class MediaPart(msgspec.Struct, frozen=True):
    """`where`: as JavaScript would write it: `messages[0].content[1]`."""

    medium: Medium
    where: str


class _Words(msgspec.Struct, frozen=True):
    """Of one API: its parts by their type, and where messages, items and the results of tools have
    parts."""

    kinds: Mapping[str, Medium]
    contents: tuple[str, ...] = ("content",)


_OF_CHATS = _Words(
    {
        "image_url": Medium.IMAGE,
        "image": Medium.IMAGE,  # as other APIs write it: an engine refuses that
        "input_image": Medium.IMAGE,
        "input_audio": Medium.AUDIO,
        "input_video": Medium.VIDEO,
        "video_url": Medium.VIDEO,
    }
)
_OF_RESPONSES = _Words(
    {"input_image": Medium.IMAGE, "image_url": Medium.IMAGE, "input_audio": Medium.AUDIO},
    ("content", "output"),
)
_OF_MESSAGES = _Words({"image": Medium.IMAGE})
_TEXTS = ("text", "input_text", "output_text")  # nearly all parts are
_RAW = "multimodal_data"  # of llama.cpp's prompts


def media_parts(values: Mapping[str, Any], endpoint: Endpoint) -> list[MediaPart]:
    """The first part of each medium. `values`: the request's fields, decoded."""
    if endpoint.family is Family.ANTHROPIC:
        found = _parts_in(values.get("messages"), "messages", _OF_MESSAGES)
    elif "messages" in endpoint.content:
        found = _parts_in(values.get("messages"), "messages", _OF_CHATS)
    elif endpoint.name.startswith("responses"):
        found = _parts_in(values.get("input"), "input", _OF_RESPONSES)
    else:
        found = (part for name in endpoint.content for part in _in_prompts(values.get(name), name))
    first: dict[Medium, MediaPart] = {}
    for part in found:
        first.setdefault(part.medium, part)
    return [*first.values()]


def _parts_in(entries: Any, where: str, words: _Words) -> Iterator[MediaPart]:
    """In the contents of messages or items."""
    if not isinstance(entries, list):
        return
    for name in words.contents:
        contents = [
            (place, content)
            for place, entry in enumerate(entries)
            if isinstance(entry, dict) and type(content := entry.get(name)) is list
        ]
        for place, content in contents:
            yield from _in_content(content, f"{where}[{place}].{name}", words)


def _in_content(content: list[Any], where: str, words: _Words) -> Iterator[MediaPart]:
    others = [
        (place, part)
        for place, part in enumerate(content)
        if isinstance(part, dict) and part.get("type") not in _TEXTS
    ]
    for place, part in others:
        kind, inner, at = part.get("type"), part.get("content"), f"{where}[{place}]"
        if words is _OF_MESSAGES and kind == "tool_result" and isinstance(inner, list):
            yield from _in_content(inner, f"{at}.content", words)
        elif words is _OF_MESSAGES and not _is_shown(part.get("source")):
            continue  # llama-server drops it
        elif isinstance(kind, str) and (medium := words.kinds.get(kind)) is not None:
            yield MediaPart(medium, at)


def _is_shown(source: Any) -> bool:
    return isinstance(source, dict) and source.get("type") in ("base64", "url")


def _in_prompts(prompt: Any, where: str) -> Iterator[MediaPart]:
    """`{"prompt_string": …, "multimodal_data": […]}`, alone or in an array."""
    if isinstance(prompt, dict) and prompt.get(_RAW) is not None:
        yield MediaPart(Medium.ANY, f"{where}.{_RAW}")
    if isinstance(prompt, list):
        for place, entry in enumerate(prompt):
            if isinstance(entry, dict) and entry.get(_RAW) is not None:
                yield MediaPart(Medium.ANY, f"{where}[{place}].{_RAW}")
                return


def refuse_media(refusals: Refusals, parts: Iterable[MediaPart], family: Family) -> None:
    """Raises ApiError: 400, one of them is refused. The first words are those of llama-server."""
    refused = next((part for part in parts if part.medium in refusals), None)
    if refused is None:
        return
    # What an Ollama client wrote looked otherwise before it was translated.
    place = "" if family is Family.OLLAMA else f" (`{refused.where}`)"
    why = refusals[refused.medium]
    message = f"{refused.medium.value} input is not supported{place}: {why}"
    param = None if family is Family.OLLAMA else refused.where.partition("[")[0].partition(".")[0]
    raise ApiError(400, message, code="media_not_supported", param=param)
