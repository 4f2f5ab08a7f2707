"""What a request is told that is too long for its model, and whose answer is shortened instead."""

from __future__ import annotations

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.explanation import Question
from trio_gateway.models.names import Wanted
from trio_gateway.models.need.excess import Excess, Terms
from trio_gateway.models.need.measured_form import Form
from trio_gateway.rawjson import Members
from trio_gateway.server.api.context_errors import ContextTooLong, terms_of
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

    param = endpoint.content[0] if endpoint.content else None
    return ContextTooLong(excess, _terms(endpoint, family, model, fields), param)


def question(
    wanted: Wanted,
    form: Form,
    endpoint: Endpoint,
    family: Family,
    fields: Members | LargeBody,
    wish: int = 0,
) -> Question:
    """For a dry run of a request of this family. `wish`: tokens that the context should have."""
    terms = _terms(endpoint, family, wanted.model, fields)
    return Question(wanted, form, is_ceiling(endpoint, family), terms, wish=wish)


def _terms(
    endpoint: Endpoint, family: Family, model: ModelConfig, fields: Members | LargeBody
) -> Terms:
    def is_sent(name: str) -> bool:
        if isinstance(fields, LargeBody):
            return fields.short_member(name) not in (None, b"null")
        return name in fields and bytes(fields[name]) != b"null"

    fixed = model.rewrite.set if model.rewrite is not None else ()
    return terms_of(endpoint, family, is_sent, fixed)
