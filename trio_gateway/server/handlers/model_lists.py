"""The list of models in the shapes of OpenAI's and of Anthropic's API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trio_gateway.models.capabilities import Capability
from trio_gateway.models.known_model import KnownModel
from trio_gateway.server.api.model_entry import modalities, shared_fields, words

# What Anthropic's own models may do, and none of ours.
_NEVER = ("batch", "citations", "code_execution", "pdf_input")
_EFFORTS = ("low", "medium", "high", "max", "xhigh")


def as_openai(known: KnownModel, created: int) -> dict[str, Any]:
    """One model, with what clients need of ours and of llama.cpp's. `created`: Unix time."""
    model, load = known.model, known.load
    entry = {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "trio-gateway",
        "description": model.description,
        "aliases": list(model.aliases),
        "tags": [],
        **shared_fields(known, known.context),
        "contexts": [*known.contexts],
        "loaded": load.variant is not None,
        "loaded_variant": load.variant,
    }
    if known.capabilities is not None:
        entry["capabilities"] = words(known.capabilities)
        entry["architecture"] = modalities(known.capabilities)
    return entry


def as_openai_list(models: Sequence[KnownModel], created: int) -> dict[str, Any]:
    """Also llama.cpp's own list, with the states of its models."""
    return {"object": "list", "data": [as_openai(known, created) for known in models]}


def as_anthropic(known: KnownModel, created: int) -> dict[str, Any]:
    """One model as OpenAI's list has it and with Anthropic's fields."""
    entry = as_openai(known, created)
    if known.capabilities is not None:
        entry["capabilities"] = _as_anthropic(known.capabilities)
    return {
        **entry,
        "type": "model",
        "display_name": known.model.name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": known.context,
        "max_tokens": known.context,
    }


def as_anthropic_list(models: Sequence[KnownModel], created: int) -> dict[str, Any]:
    """One page with all models."""
    data = [as_anthropic(known, created) for known in models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}


def _as_anthropic(found: frozenset[Capability]) -> dict[str, Any]:
    """An object for each: all of Anthropic's own, and of ours those that the model has."""
    thinks = _supported(Capability.THINKING in found)
    no, yes = _supported(False), _supported(True)
    return {
        **dict.fromkeys(words(found), yes),
        **dict.fromkeys(_NEVER, no),
        "context_management": no,
        "effort": {**no, **dict.fromkeys(_EFFORTS, no)},
        "image_input": _supported(Capability.VISION in found),
        "server_tools": {**no, "code_execution": no, "web_search": no},
        "structured_outputs": no,
        "thinking": {
            **thinks,
            "types": {"adaptive": no, "between_tools": no, "disabled": yes, "enabled": thinks},
        },
    }


def _supported(value: bool) -> dict[str, bool]:
    return {"supported": value}
