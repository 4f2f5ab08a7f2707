"""The list of models in the shapes of OpenAI's and of Anthropic's API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

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
    if known.model.peer is not None and known.choice is None:
        entry["from"] = known.model.peer
    if (choice := known.choice) is not None:
        members = [member.name for member in choice.members]
        entry["choice"] = {"strategy": choice.strategy.value, "models": members}
    if known.capabilities is not None:
        entry["capabilities"] = words(known.capabilities)
        entry["architecture"] = modalities(known.capabilities)
    return entry


def as_own_list(models: Sequence[KnownModel], created: int) -> dict[str, Any]:
    """For other gateways: what this one runs itself, and what each of them can be asked for. A
    choice that may go on to another gateway might come back to the one that asks."""
    own = [known for known in models if known.model.peer is None]
    data = [{**as_openai(known, created), "endpoints": sorted(known.served)} for known in own]
    return {"object": "list", "data": data}


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


class Page(msgspec.Struct, frozen=True):
    """What of a list is asked for: up to `limit` entries after one of them, or before one."""

    limit: int | None = None
    after: str | None = None
    before: str | None = None


def as_anthropic_list(models: Sequence[KnownModel], created: int, page: Page) -> dict[str, Any]:
    """A page; without a limit there is one, with all models.

    Raises:
        ValueError: `after` or `before` is in no list.
    """
    names = [known.model.name for known in models]
    begin = 0 if page.after is None else names.index(page.after) + 1
    end = len(names) if page.before is None else names.index(page.before)
    limit = len(names) if page.limit is None else page.limit
    if page.before is not None and page.after is None:  # the last ones before it
        first = max(end - limit, 0)
        chosen, has_more = models[first:end], first > 0
    else:
        chosen = models[begin : min(begin + limit, end)]
        has_more = begin + limit < end
    data = [as_anthropic(known, created) for known in chosen]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": has_more, "first_id": None, "last_id": None, **ends}


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
