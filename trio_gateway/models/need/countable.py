"""What of a request is counted: its text without media, and of a large batch its largest. Pure.

A count costs an engine, or a helper, about as much as the text is long. So a request has a budget:
what goes beyond it is taken at its bound, which costs nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trio_gateway.models.need.bounds import PROMPT_LEVELS, most_of_prompt
from trio_gateway.models.need.contents import (
    RequestFields,
    image_count,
    media_of_prompt,
    text_of_prompt,
    text_size,
)
from trio_gateway.models.need.readable_chat import (
    readable_choice,
    readable_messages,
    readable_tools,
)
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
    """What of a chat an engine reads, without its media; None: what is left is too long."""
    media = image_count(fields)
    messages, tools = readable_messages(fields.messages), readable_tools(fields.tools)
    choice = readable_choice(fields.tool_choice)
    if not (messages is fields.messages and tools is fields.tools and choice is fields.tool_choice):
        # Everything else stays as it came: raw, and not looked at.
        made = {"messages": messages, "tools": tools, "tool_choice": choice}
        request = {name: value for name, value in members(body).items() if name not in made}
        request |= {
            name: msgspec.Raw(msgspec.json.encode(value))
            for name, value in made.items()
            if value is not None
        }
        body = msgspec.json.encode(request)
        fields = msgspec.structs.replace(fields, **made)
    return Countable(fields, body, media) if len(body) <= COUNTED_MAX_BYTES else None


def countable_prompts(
    kind: str, fields: RequestFields, body: bytes, query: str | None, image_tokens: int
) -> Countable | None:
    """The prompts, or of many the largest; None: not even one can be counted. `query`: is read
    with each of them."""
    name = "input" if kind == "embeddings" else "prompt"
    given = getattr(fields, name)
    plain = _plain(given)
    if query is None and plain is given and _is_small(given, len(body)):
        return Countable(fields, body)
    given = plain
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


def _plain(prompts: Any) -> Any:
    """With texts in place of objects that have nothing else; the same, if there are none."""
    if isinstance(prompts, list) and any(isinstance(p, dict) for p in prompts):
        return [*map(_plain_prompt, prompts)]
    return _plain_prompt(prompts)


def _plain_prompt(prompt: Any) -> Any:
    is_text = isinstance(prompt, dict) and not media_of_prompt(prompt)
    return text_of_prompt(prompt) if is_text else prompt


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
