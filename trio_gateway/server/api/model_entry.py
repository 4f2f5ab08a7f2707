"""What every list of models says about each, in the words that clients look for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trio_gateway.models.capabilities import Capability
from trio_gateway.models.known_model import KnownModel


def shared_fields(known: KnownModel, context: int) -> dict[str, Any]:
    """Of a model that is served with this context. What is not known is left out.

    `max_model_len` is vLLM's word for the context. `meta` and `status` are llama.cpp's: `n_ctx` is
    what one request gets, `n_ctx_train` what the model was trained for.
    """
    return {
        "context_length": context,
        "max_model_len": context,
        "meta": _meta(known, context),
        "status": _status(known),
    }


def words(found: Iterable[Capability]) -> list[str]:
    """In the order of the enumeration."""
    wanted = frozenset(found)
    return [kind.value for kind in Capability if kind in wanted]


def modalities(found: frozenset[Capability]) -> dict[str, list[str]]:
    """As llama.cpp has them."""
    media = {Capability.VISION: "image", Capability.AUDIO: "audio"}
    taken = ["text", *(word for kind, word in media.items() if kind in found)]
    return {"input_modalities": taken, "output_modalities": ["text"]}


def _meta(known: KnownModel, context: int) -> dict[str, int]:
    header, tensors = known.facts.header, known.facts.tensors
    found: dict[str, int | None] = {"n_ctx": context}
    if header is not None:
        found["n_ctx_train"] = header.number("context_length")
        found["n_vocab"] = header.vocabulary
        found["n_embd"] = header.number("embedding_length")
    if tensors is not None:
        found["n_params"], found["size"] = tensors.parameters, tensors.size_bytes
    return {name: value for name, value in found.items() if value}


def _status(known: KnownModel) -> dict[str, Any]:
    """As llama.cpp's router has it, without the arguments: they may have paths and keys in them."""
    status: dict[str, Any] = {"value": known.load.state.value}
    return {**status, "failed": True} if known.load.has_failed else status
