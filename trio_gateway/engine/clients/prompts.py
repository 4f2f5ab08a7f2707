"""The prompts of `/v1/completions` and `/v1/embeddings`, counted with whatever counts a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from trio_gateway.rawjson import decode_or_none, members_or_none

CountText = Callable[[str], Awaitable[int | None]]
# No text has more tokens than bytes, and these at its ends.
_ENDS = 16


async def count_largest(prompts: Any, count_text: CountText) -> int | None:
    """The largest of the prompts: each is a sequence of its own. None: unknown.

    The longest are counted first. Those that cannot have more tokens than the largest found until
    then are not counted at all.
    """
    match prompts:
        case [*parts] if parts and all(isinstance(p, list | str) for p in parts):
            largest = 0
            for bound, part in sorted(
                ((_most(part), part) for part in parts), key=lambda pair: pair[0], reverse=True
            ):
                if bound <= largest:
                    break
                count = await _count_one(part, count_text)
                if count is None:
                    return None
                largest = max(largest, count)
            return largest
    return await _count_one(prompts, count_text)


async def _count_one(prompt: Any, count_text: CountText) -> int | None:
    """A text; or an array of token ids and strings, which is one sequence if it has ids in it."""
    match prompt:
        case str():
            return await count_text(prompt)
        case [*parts] if parts and all(isinstance(p, int | str) for p in parts):
            texts = [p for p in parts if isinstance(p, str)]
            ids = len(parts) - len(texts)
            if not ids:
                return await count_largest(texts, count_text)
            counts = [await count_text(text) for text in texts]
            return _total(counts, ids)
    return None


def _most(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "surrogatepass")) + _ENDS
    texts = [part for part in prompt if isinstance(part, str)]
    return sum(map(_most, texts)) + len(prompt) - len(texts)


def field(body: bytes, name: str) -> Any:
    """One field of a request; None if that is missing or not JSON. The rest is not looked at."""
    found = (members_or_none(body) or {}).get(name)
    return None if found is None else decode_or_none(found)


def _total(counts: Sequence[int | None], more: int) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) + more if len(known) == len(counts) else None
