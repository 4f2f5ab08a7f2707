"""The prompts of `/v1/completions` and `/v1/embeddings`, counted with whatever counts a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from trio_gateway.rawjson import decode_or_none, members_or_none


async def count_largest(
    prompts: Any, count_text: Callable[[str], Awaitable[int | None]]
) -> int | None:
    """The largest of the prompts: each is a sequence of its own. None: unknown."""
    match prompts:
        case [*parts] if parts and all(isinstance(p, list | str) for p in parts):
            return _largest([await _count_one(part, count_text) for part in parts])
    return await _count_one(prompts, count_text)


async def _count_one(prompt: Any, count_text: Callable[[str], Awaitable[int | None]]) -> int | None:
    """A text; or an array of token ids and strings, which is one sequence if it has ids in it."""
    match prompt:
        case str():
            return await count_text(prompt)
        case [*parts] if parts and all(isinstance(p, int | str) for p in parts):
            texts = [p for p in parts if isinstance(p, str)]
            counts = [await count_text(text) for text in texts]
            ids = len(parts) - len(texts)
            return _total(counts, ids) if ids else _largest(counts)
    return None


def field(body: bytes, name: str) -> Any:
    """One field of a request; None if that is missing or not JSON. The rest is not looked at."""
    found = (members_or_none(body) or {}).get(name)
    return None if found is None else decode_or_none(found)


def _largest(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _total(counts: Sequence[int | None], more: int) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) + more if len(known) == len(counts) else None
