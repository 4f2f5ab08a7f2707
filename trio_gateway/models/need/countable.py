"""What of a request is counted: its text without media, and of a large batch its largest. Pure.

A count costs an engine, or a helper, about as much as the text is long. So a request has a budget:
what goes beyond it is taken at its bound, which costs nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trio_gateway.models.need.bounds import PROMPT_LEVELS, most_of_prompt
from trio_gateway.models.need.contents import RequestFields, image_count, text_size, without_media
from trio_gateway.rawjson import members

# Bytes of text. The vocabulary takes a second for them, and no other request's count is to wait
# for longer.
COUNTED_MAX_BYTES = 2 << 20
# Texts of one request, each of which is a call of an engine.
COUNTED_MAX_TEXTS = 64


class Countable(msgspec.Struct, frozen=True):
    """`fields` and `body`: a request that is counted in place of the whole one. `media`: how many
    were left out. `left_out`: prompts that were left out, none of which has more than `rest`
    tokens."""

    fields: RequestFields
    body: bytes
    media: int = 0
    left_out: int = 0
    rest: int = 0


def countable_chat(fields: RequestFields, body: bytes) -> Countable | None:
    """A chat without its media; None: what is left is too long.

    Base64 is not text, and engines count an image's marker, not what it becomes.
    """
    media = image_count(fields)
    if media:
        # Everything else stays as it came: raw, and not looked at.
        request = members(body)
        messages = without_media(fields.messages)
        request["messages"] = msgspec.Raw(msgspec.json.encode(messages))
        body = msgspec.json.encode(request)
        fields = msgspec.structs.replace(fields, messages=messages)
    return Countable(fields, body, media) if len(body) <= COUNTED_MAX_BYTES else None


def countable_prompts(
    kind: str, fields: RequestFields, body: bytes, query: str | None, image_tokens: int
) -> Countable | None:
    """The prompts, or of many the largest; None: not even one can be counted. `query`: is read
    with each of them."""
    name = "input" if kind == "embeddings" else "prompt"
    given = getattr(fields, name)
    if query is None and _is_small(given, len(body)):
        return Countable(fields, body)
    batch = given if _is_batch(given) else [given]
    added = 0 if query is None else text_size(query) + 1
    bounds = [most_of_prompt(prompt, image_tokens) + added for prompt in batch]
    chosen: list[Any] = []
    texts = size = 0
    largest_first = sorted(range(len(batch)), key=bounds.__getitem__, reverse=True)
    for place in largest_first:
        texts += _texts_in(batch[place])
        size += bounds[place]
        if texts > COUNTED_MAX_TEXTS or size > COUNTED_MAX_BYTES:
            break
        chosen.append(batch[place])
    if not chosen:
        return None
    rest = bounds[largest_first[len(chosen)]] if len(chosen) < len(batch) else 0
    if query is not None:
        chosen = [f"{query}\n{text}" for text in chosen]
    made = {name: chosen if _is_batch(given) else chosen[0]}
    return Countable(
        RequestFields(**made), msgspec.json.encode(made), 0, len(batch) - len(chosen), rest
    )


def _is_small(prompts: Any, size: int) -> bool:
    if size > COUNTED_MAX_BYTES:
        return False
    return not isinstance(prompts, list) or _texts_in(prompts) <= COUNTED_MAX_TEXTS


def _is_batch(prompts: Any) -> bool:
    """Of several; an array with token ids in it is one."""
    return isinstance(prompts, list) and not any(isinstance(p, int) for p in prompts)


def _texts_in(prompt: Any, depth: int = 0) -> int:
    """Calls that it takes to count it."""
    if isinstance(prompt, list):
        others = [p for p in prompt if not isinstance(p, int)]
        if depth == PROMPT_LEVELS:
            return len(others)
        return sum(_texts_in(p, depth + 1) for p in others)
    return 1
