"""How long one input of an embedding engine may be, where that is less than its context.

llama.cpp computes an input for embeddings, or a query with its document, at once: it may have as
many tokens as a physical batch (`--ubatch-size`, 512). Only where all of it can be read off the
last token is it computed piece by piece: pooling "last", and ranks of a causal model.
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
    """The models, with `largest_input` of their variants. Blocks: reads the headers of embedding
    models; a file that cannot be read says nothing."""
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
        if most is None or most >= variant.context:
            return variant
        return msgspec.structs.replace(variant, largest_input=most)

    return tuple(
        msgspec.structs.replace(model, variants=tuple(map(with_one, model.variants)))
        for model in models
    )


def largest_input(args: EngineArgs, header: GgufHeader | None) -> int | None:
    """Tokens; None: as many as the context has, or not known. `header`: of the model's file, None
    if that cannot be read."""
    if not args.is_embedding:
        return None
    pooling = args.value(POOLING) or ("rank" if args.is_on(RERANKING) else None)
    if pooling is None or pooling in ("last", "rank"):
        if header is None:
            return None
        number = header.number("pooling_type") or 0
        pooling = pooling or (_POOLINGS[number] if number < len(_POOLINGS) else "none")
    if pooling in ("last", "rank") and header is not None and _is_causal(args, header):
        return None
    return args.physical_batch


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
