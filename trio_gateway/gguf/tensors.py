"""TensorTotals: how many parameters a model's tensors have, and how many bytes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

# A block of each type: its elements and its bytes (ggml.h and ggml-common.h, October 2026).
BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56),
    30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
    42: (64, 18),
}  # fmt: skip
_MOST = 2**63 - 1  # of either: what JSON's readers take


class TensorTotals(msgspec.Struct, frozen=True):
    """As a llama-server says them, `n_params` and `size`. `size_bytes` None: some are of a type
    that is not known."""

    parameters: int = 0
    size_bytes: int | None = 0

    def plus(self, shape: Sequence[int], kind: int) -> TensorTotals | None:
        """With one more. None: it cannot be a tensor."""
        return self.with_part(TensorTotals(math.prod(shape), size_of(shape, kind)))

    def with_part(self, other: TensorTotals) -> TensorTotals | None:
        """Of two files of one model. None: no model is that large."""
        size: int | None = None
        if self.size_bytes is not None and other.size_bytes is not None:
            size = self.size_bytes + other.size_bytes
        parameters = self.parameters + other.parameters
        return None if max(parameters, size or 0) > _MOST else TensorTotals(parameters, size)


def size_of(shape: Sequence[int], kind: int) -> int | None:
    """The bytes of a tensor; None: its type is not known."""
    block = BLOCKS.get(kind)
    return None if block is None else math.prod(shape) // block[0] * block[1]
