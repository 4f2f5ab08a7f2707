"""How long one input of an embedding engine may be, and whether each of its tokens gets a vector.

llama.cpp computes an input for embeddings, or a query with its document, at once: it may have as
many tokens as a physical batch (`--ubatch-size`, 512), where that is less than its context. Only
where all of it can be read off the last token is it computed piece by piece: pooling "last", and
ranks of a causal model.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.engine_args import EngineArgs, runs_elsewhere
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.config.server_options import ATTENTION, MODEL, POOLING, RERANKING
from trio_gateway.gguf.header import GgufHeader, read_headers

_POOLINGS = ("none", "mean", "cls", "last", "rank")  # `<architecture>.pooling_type`, by its number


def with_largest_inputs(models: Sequence[ModelConfig]) -> tuple[ModelConfig, ...]:
    """The models, with `largest_input` and `gives_token_vectors` of their variants. Blocks: reads
    the headers of embedding models; a file that cannot be read says nothing."""
    files = {
        id(variant): path
        for model in models
        for variant in model.variants
        if (path := _file_of_embedding(variant)) is not None
    }
    headers = read_headers(sorted(set(files.values())))

    def with_one(variant: VariantConfig) -> VariantConfig:
        header = headers.get(files.get(id(variant), ""))
        most = largest_input(variant.engine_args, header)
        return msgspec.structs.replace(
            variant,
            largest_input=None if most is None or most >= variant.context else most,
            gives_token_vectors=_pooling(variant.engine_args, header) == "none",
        )

    return tuple(
        msgspec.structs.replace(model, variants=tuple(map(with_one, model.variants)))
        for model in models
    )


def largest_input(args: EngineArgs, header: GgufHeader | None) -> int | None:
    """Tokens; None: as many as the context has, or not known. `header`: of the model's file, None
    if that cannot be read."""
    if not args.is_embedding:
        return None
    pooling = _pooling(args, header)
    if pooling is None or (header is None and pooling in ("last", "rank")):
        return None
    if pooling in ("last", "rank") and header is not None and _is_causal(args, header):
        return None
    return args.physical_batch


def _pooling(args: EngineArgs, header: GgufHeader | None) -> str | None:
    """How the vectors of an input's tokens become one; None: not known."""
    if not args.is_embedding:
        return args.value(POOLING)
    if (given := args.value(POOLING) or ("rank" if args.is_on(RERANKING) else None)) is not None:
        return given
    if header is None:
        return None
    number = header.number("pooling_type") or 0  # most models for chats have none
    return _POOLINGS[number] if number < len(_POOLINGS) else "none"


def _is_causal(args: EngineArgs, header: GgufHeader) -> bool:
    """Whether a token sees only those before it, and so the model keeps a cache of them."""
    if (given := args.value(ATTENTION)) is not None:
        return given == "causal"
    return header.number("attention.causal") != 0


def _file_of_embedding(variant: VariantConfig) -> str | None:
    args = variant.engine_args
    if not args.is_embedding or runs_elsewhere(variant.binary):
        return None
    path = args.value(MODEL)
    return str(variant.workdir / path) if path else None
