"""The list of models in the shapes of APIs other than OpenAI's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


def as_anthropic_model(model: dict[str, Any]) -> dict[str, Any]:
    """A model as OpenAI's list has it, and with Anthropic's fields."""
    return {
        **model,
        "type": "model",
        "display_name": model["id"],
        "created_at": datetime.fromtimestamp(model["created"], UTC).isoformat(),
    }


def as_anthropic_list(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One page with all models."""
    data = [*map(as_anthropic_model, models)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}
