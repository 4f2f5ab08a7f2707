"""What a request is about: the field that it has to have, and what may be in it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_fields import ENTRIES_MAX


class Content(enum.Enum):
    """What is expected, in words."""

    MESSAGES = "a non-empty array of messages"
    ARRAY = "an array of token ids"
    TEXT = "a string"
    TEXT_OR_ARRAY = "a string or a non-empty array"
    TEXT_OR_ANY_ARRAY = "a string or an array"
    INPUT_ITEMS = "a string or a non-empty array; with `instructions` it may be empty"


_BY_FIELD = {
    "messages": Content.MESSAGES,
    "tokens": Content.ARRAY,
    "query": Content.TEXT,
    "input_prefix": Content.TEXT,
    "input_suffix": Content.TEXT,
}
_BY_ENDPOINT = {
    "responses": Content.INPUT_ITEMS,
    "responses/input_tokens": Content.INPUT_ITEMS,
    "tokenize": Content.TEXT_OR_ANY_ARRAY,
    "audio/speech": Content.TEXT,
    "images/generations": Content.TEXT,
}
# In place of an input, what the answer can go by. OpenAI's own server takes the others as well.
_INSTEAD_OF_INPUT = ("instructions", "previous_response_id", "conversation", "prompt")


def check_content(values: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Of a request's decoded fields.

    Raises:
        ApiError: 400, what it is about is missing, empty, too much or something else.
    """
    if not endpoint.content:
        return
    name = endpoint.content[0]
    if name not in values:
        name = next((n for n in endpoint.content if n in values), name)
    content = values.get(name)
    if not (name == "messages" and _are_messages(content)):  # as most are
        expected = _expected(endpoint.name, name)
        if not _fits(content, expected, values):
            message = f"`{name}` is {_fault(content, expected)}; expected {expected.value}"
            raise ApiError(400, message, code=f"missing_{name}", param=name)
    if isinstance(content, list) and len(content) > ENTRIES_MAX:
        entries = sum(not isinstance(entry, int) for entry in content)
        if entries > ENTRIES_MAX:
            message = f"`{name}` has {entries} entries; send no more than {ENTRIES_MAX} at a time"
            raise ApiError(400, message, code="invalid_field", param=name)


def may_be_empty(endpoint_name: str, field: str) -> bool:
    """Whether an array in this field may have no entries, for all that a schema can say."""
    kinds = (Content.ARRAY, Content.TEXT_OR_ANY_ARRAY, Content.INPUT_ITEMS)
    return _expected(endpoint_name, field) in kinds


def _expected(endpoint_name: str, field: str) -> Content:
    found = _BY_FIELD.get(field)
    return found or _BY_ENDPOINT.get(endpoint_name, Content.TEXT_OR_ARRAY)


def _are_messages(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict)


def _fits(content: Any, expected: Content, values: Mapping[str, Any]) -> bool:
    match expected:
        case Content.MESSAGES:
            return _are_messages(content)
        case Content.ARRAY:
            return isinstance(content, list)
        case Content.TEXT:
            return isinstance(content, str)
        case Content.TEXT_OR_ARRAY:
            filled = isinstance(content, list | dict) and bool(content)
            return isinstance(content, str) or filled
        case Content.TEXT_OR_ANY_ARRAY:
            return isinstance(content, str | list)
        case Content.INPUT_ITEMS:
            filled = bool(content) or any(values.get(name) for name in _INSTEAD_OF_INPUT)
            return isinstance(content, str) or (isinstance(content, list) and filled)


def _fault(content: Any, expected: Content) -> str:
    if content is None:
        return "missing"
    return "empty" if content == [] and expected is not Content.TEXT else "wrong"
