"""What a request is told that is too long for its model, and whose answer is shortened instead."""

from __future__ import annotations

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.need.excess import Excess
from trio_gateway.rawjson import Members
from trio_gateway.server.api.context_errors import ContextTooLong, context_too_long
from trio_gateway.server.api.endpoint import Endpoint, Family, Need
from trio_gateway.server.api.large_body import LargeBody

_CEILING = frozenset({Need.CHAT, Need.RESPONSES, Need.MESSAGES})


def is_ceiling(endpoint: Endpoint, family: Family) -> bool:
    """Whether the answer's maximum is no more than that to its client: agents send more than they
    expect to get. It is one in all of Ollama's API."""
    return endpoint.need in _CEILING or family is Family.OLLAMA


def too_long(
    excess: Excess,
    endpoint: Endpoint,
    family: Family,
    model: ModelConfig,
    fields: Members | LargeBody,
) -> ContextTooLong:
    """`family`: whose client asked. `fields`: of its request, as the engine would get them."""

    def is_sent(name: str) -> bool:
        if isinstance(fields, LargeBody):
            return fields.short_member(name) not in (None, b"null")
        return name in fields and bytes(fields[name]) != b"null"

    fixed = model.rewrite.set if model.rewrite is not None else ()
    return context_too_long(excess, endpoint, family, is_sent, fixed)
