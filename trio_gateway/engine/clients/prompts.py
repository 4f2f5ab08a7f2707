"""The prompts of `/v1/completions` and `/v1/embeddings`, counted with whatever counts a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from trio_gateway.rawjson import decode_or_none, members_or_none


async def count_largest(
    prompts: Any, count_text: Callable[[str], Awaitable[int | None]], *, nested: bool = False
) -> int | None:
    """The largest of the prompts: each is a sequence of its own. None: unknown."""
    match prompts:
        case str():
            return await count_text(prompts)
        case [*parts] if parts and all(isinstance(p, int | str) for p in parts):
            texts = [p for p in parts if isinstance(p, str)]
            counts = [await count_text(text) for text in texts]
            ids = len(parts) - len(texts)
            # Token ids make it one sequence, with the strings between them in it.
            return _total(counts, ids) if ids else _largest(counts)
        case [*parts] if parts and not nested:
            return _largest([await count_largest(p, count_text, nested=True) for p in parts])
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
