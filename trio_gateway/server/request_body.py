"""A request's body: the fields that the gateway reads, and the one that it may change."""

from __future__ import annotations

import msgspec

from trio_gateway.models.token_count import RequestFields
from trio_gateway.server.errors import ApiError

CONTENT_FIELDS = {
    "chat/completions": "messages",
    "completions": "prompt",
    "embeddings": "input",
}


def decode_fields(body: bytes, content_field: str) -> RequestFields:
    """The fields that the gateway needs.

    Raises:
        ApiError: 400, with what is wrong.
    """
    try:
        fields = msgspec.json.decode(body, type=RequestFields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(body, error) from None
    if not isinstance(fields.model, str) or not fields.model:
        message = "`model` is missing or not a string; GET /v1/models lists the names"
        raise ApiError(400, message, code="missing_model", param="model")
    content = getattr(fields, content_field)
    if content_field == "messages":
        good = isinstance(content, list) and content and all(isinstance(m, dict) for m in content)
        what = "an array of messages that is not empty"
    else:
        good = isinstance(content, str | list | dict) and bool(content or content == "")
        what = "a string or an array"
    if not good:
        message = f"`{content_field}` is missing or wrong; expected {what}"
        raise ApiError(400, message, code=f"missing_{content_field}", param=content_field)
    return fields


def endpoint_of(body: bytes) -> str:
    """The endpoint that a request is for, by the field that has its content.

    Raises:
        ApiError: 400, none of them is there.
    """
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(body, error) from None
    for endpoint, field in CONTENT_FIELDS.items():
        if field in found:
            return endpoint
    message = "the body has no `messages`, `prompt` or `input`: send it as to one of the endpoints"
    raise ApiError(400, message, code="missing_content")


def not_json(body: bytes, error: Exception) -> ApiError:
    message = f"the body is not a JSON object: {error}" if body else "the body is empty"
    return ApiError(400, message, code="invalid_json")


def nested_too_deeply() -> ApiError:
    return ApiError(400, "the body is nested too deeply", code="invalid_json")


def with_answer_limit(body: bytes, answer_tokens: int) -> bytes:
    """The request with its own maximum of the answer lowered; all else as it came."""
    request = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in ("max_completion_tokens", "max_tokens", "n_predict"):
        value = msgspec.json.decode(request[name]) if name in request else None
        if isinstance(value, int) and value > answer_tokens:
            request[name] = msgspec.Raw(b"%d" % answer_tokens)
    return msgspec.json.encode(request)


def too_long(endpoint: str, message: str) -> ApiError:
    """400: the prompt, or prompt and answer, fit into no context."""
    param = CONTENT_FIELDS.get(endpoint)
    return ApiError(400, message, code="context_length_exceeded", param=param)
