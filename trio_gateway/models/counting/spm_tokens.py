"""Counts tokens of SentencePiece vocabularies (`tokenizer.ggml.model` "llama") as llama.cpp does.

Two neighbours are joined where the result is a token, the one of the highest score first, of equal
ones the leftmost. What is not a token in the end is split into its bytes. `tokenizers` has ranks
of pairs where this has scores of results; they differ where scores are equal, so it is done here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import pairwise

from trio_gateway.gguf.metadata import Metadata
from trio_gateway.models.counting.refusal import CannotCount

BLANK = "▁"  # stands for a blank in the vocabulary
_REMEMBERED_WORDS = 50_000
_LONGEST_REMEMBERED = 64  # characters
_BYTES = [f"<0x{value:02X}>" for value in range(256)]


class SpmTokens:
    """See PieceCounter in `gguf_vocabulary.py`."""

    def __init__(self, metadata: Metadata, tokens: list[str]) -> None:
        scores = metadata.numbers("tokenizer.ggml.scores")
        if len(scores) != len(tokens) or not set(_BYTES).issubset(tokens):
            raise CannotCount(
                "the vocabulary has no score for each token, or no token for each byte"
            )
        self._scores = dict(zip(tokens, map(float, scores), strict=True))
        self._adds_blank = metadata.flag("tokenizer.ggml.add_space_prefix", True)
        # A blank begins a word where no token has it in its middle, behind the same character: no
        # token reaches over such a place, so the words can be counted one by one.
        self._no_cut_behind = {BLANK} | {
            before for token in tokens for before, char in pairwise(token) if char == BLANK
        }
        self._known: dict[str, int] = {}

    def count(self, text: str, *, follows_special: bool) -> int:
        if self._adds_blank and follows_special:
            text = " " + text
        text = text.replace(" ", BLANK)
        return sum(self._count_word(word) for word in self._words(text))

    def _words(self, text: str) -> Iterator[str]:
        start, end = 0, text.find(BLANK, 1)
        while end >= 0:
            if text[end - 1] not in self._no_cut_behind:
                yield text[start:end]
                start = end
            end = text.find(BLANK, end + 1)
        yield text[start:]

    def _count_word(self, word: str) -> int:
        known = self._known.get(word)
        if known is None:
            known = self._count_joined(word)
            if len(word) <= _LONGEST_REMEMBERED:
                if len(self._known) >= _REMEMBERED_WORDS:
                    self._known.clear()
                self._known[word] = known
        return known

    def _count_joined(self, word: str) -> int:
        """Join neighbours until none can be joined, then count what is left.

        A symbol is the slice from its start to the start of the next one; one that was joined to
        its left neighbour has no end any more.
        """
        scores, size = self._scores, len(word)
        ends = list(range(1, size + 1))
        before = list(range(-1, size - 1))
        queue: list[tuple[float, int, int]] = []  # the worst score last, then the rightmost

        def offer(left: int, right: int) -> None:
            if left < 0 or right >= size:
                return
            end = ends[right]
            score = scores.get(word[left:end])
            if score is not None:
                heapq.heappush(queue, (-score, left, end))

        for left in range(size - 1):
            offer(left, left + 1)
        while queue:
            _, left, end = heapq.heappop(queue)
            right = ends[left]
            # Joined in the meantime, one of them or both, with each other or with a third.
            if right < 0 or right >= end or ends[right] != end:
                continue
            ends[left], ends[right] = end, -1
            if end < size:
                before[end] = left
            offer(before[left], left)
            offer(left, end)
        return sum(
            1 if word[left:end] in scores else len(word[left:end].encode())
            for left, end in enumerate(ends)
            if end >= 0
        )
