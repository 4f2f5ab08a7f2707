"""What children of the gateway inherit of its environment: nothing that is for it alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

OWN_PREFIX = "TRIO_GATEWAY_"
# Where Vertex AI reaches its container: llama-server listens there, whatever its --port says.
OWN_PLACE = frozenset({"AIP_MODE", "AIP_HTTP_PORT"})


def inherited(
    secrets: Collection[str] = (), wishes: Mapping[str, bool] | None = None
) -> dict[str, str]:
    """The environment of a child.

    Args:
        secrets: the names of variables that are kept from it, next to the gateway's own.
        wishes: by name, whether this child gets a variable, whatever holds for others.
    """
    wishes = wishes or {}
    return {
        name: value
        for name, value in os.environ.items()
        if wishes.get(name, not _is_ours(name, secrets))
    }


def _is_ours(name: str, secrets: Collection[str]) -> bool:
    return name in secrets or name in OWN_PLACE or name.startswith(OWN_PREFIX)
