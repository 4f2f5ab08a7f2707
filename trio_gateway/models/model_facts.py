"""ModelFacts: what is known of a model's files, and what its engine said of them."""

from __future__ import annotations

import msgspec

from trio_gateway.gguf.header import GgufHeader
from trio_gateway.gguf.tensors import TensorTotals


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Each is None where it is not known. `size_bytes`: of the file, or of all its parts, 0 without
    one; `modified_s`: Unix time, None without one. `header`: None, it is not a GGUF file that can
    be read. `tensors`: of all parts. `template`: the one in `--chat-template-file`; None: there is
    none, or it cannot be read. `projector`: the header of `--mmproj`. `engine_template`,
    `engine_media`: what its last engine said, for what no file says: see EngineFacts.
    """

    size_bytes: int = 0
    modified_s: float | None = None
    header: GgufHeader | None = None
    tensors: TensorTotals | None = None
    template: str | None = None
    projector: GgufHeader | None = None
    engine_template: str | None = None
    engine_media: frozenset[str] | None = None
