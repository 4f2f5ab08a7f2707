"""Parts of messages, of whatever API, in the terms of chat completions. Pure.

llama.cpp's server refuses a part of a kind that it does not know. Such a part is counted by its
text, for other engines that may take it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trio_gateway.models.need.contents import is_media

Json = dict[str, Any]

# Without its data: what counts is that it is there.
IMAGE: Json = {"type": "image_url", "image_url": {}}


def objects(value: Any) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def parts_of(content: Any) -> list[Json]:
    """Of a text, or of an array of parts."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [*map(part_of, content)] if isinstance(content, list) else []


def part_of(part: Any) -> Json:
    """One part: a text, or an image for media of any kind."""
    # Without patterns, which take three times as long: a conversation has many parts.
    if isinstance(part, dict):
        text = part.get("text")
        if isinstance(text, str):
            return {"type": "text", "text": text}
        if is_media(part):
            return IMAGE
        if isinstance(refusal := part.get("refusal"), str):
            return {"type": "text", "text": refusal}
    return {"type": "text", "text": part if isinstance(part, str) else as_json(part)}


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def function_call(call_id: Any, name: Any, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def tool_result(call_id: Any, content: Any) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}
