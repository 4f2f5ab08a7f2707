"""A request's body: what the gateway reads of it, and the few fields that it may change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trio_gateway.config.schema import RewriteConfig
from trio_gateway.models.need import counted_form
from trio_gateway.models.need.bounds import RequestFields
from trio_gateway.models.need.counted_form import CountedForm, as_is
from trio_gateway.server.api.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    Endpoint,
    ModelIn,
    Need,
)
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_fields import find_mistake

_WHAT = {
    "messages": "an array of messages that is not empty",
    "tokens": "an array of token ids",
}
_TEXT_OR_ARRAY = "a string or an array"

_COUNTED_AS: Mapping[Need, Callable[[bytes], CountedForm]] = {
    Need.CHAT: as_is(CHAT.name),
    Need.PROMPT: as_is(COMPLETIONS.name),
    Need.INPUT: as_is(EMBEDDINGS.name),
    Need.CONTENT: counted_form.embedding_as_input,
    Need.RESPONSES: counted_form.responses_as_chat,
    Need.MESSAGES: counted_form.messages_as_chat,
    Need.INFILL: counted_form.infill_as_prompt,
    Need.RERANK: counted_form.rerank_as_input,
}

Members = dict[str, msgspec.Raw]

# Decoding 64 MB of `{}` takes gigabytes, and counting their tokens minutes. No prompt of text has
# so many brackets and commas, and none of token ids so many ids.
STRUCTURE_MAX = 2_000_000
_LARGE_BYTES = 1_000_000


class RequestBody(msgspec.Struct, frozen=True):
    """A JSON body. `model`: as the client wrote it; None: it names none, and need not.

    `members`: its fields, undecoded. `wants_stream`: the answer is to come as events.
    """

    data: bytes
    members: Members
    model: str | None
    wants_stream: bool


def read_body(data: bytes, endpoint: Endpoint) -> RequestBody:
    """Check what the gateway relies on, and the types of the fields that are known; all else is for
    the engine to judge.

    Raises:
        ApiError: 400, with what is wrong.
    """
    members = _members(data)
    model = _decoded(members, "model")
    named = isinstance(model, str) and model != ""
    if not named and (model is not None or endpoint.model_in is not ModelIn.BODY_OR_NONE):
        message = "`model` is missing or not a string; GET /v1/models lists the names"
        raise ApiError(400, message, code="missing_model", param="model")
    _check_content(members, endpoint)
    _check_fields(members, endpoint, data)
    return RequestBody(data, members, model, _decoded(members, "stream") is True)


def counted_as(endpoint: Endpoint, data: bytes) -> tuple[CountedForm, RequestFields]:
    """The request in the terms by which it is counted.

    Raises:
        ApiError: 400, a field that counts is not what it should be.
    """
    try:
        form = _COUNTED_AS[endpoint.need](data)
        return form, msgspec.json.decode(form.body, type=RequestFields)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(data, error) from None
    except RecursionError:
        raise nested_too_deeply() from None


def endpoint_of(data: bytes, name: str | None = None) -> Endpoint:
    """The endpoint that a request is for: the one of this name, else by the field that has its
    content.

    Raises:
        ApiError: 400, there is none.
    """
    if name is not None:
        counted = {row.name: row for row in ENDPOINTS if row.need in _COUNTED_AS}
        if (found := counted.get(name.removeprefix("/").removeprefix("v1/"))) is None:
            message = f"?endpoint={name[:40]}: expected one of {', '.join(sorted(counted))}"
            raise ApiError(400, message, code="unknown_endpoint", param="endpoint")
        return found
    members = _members(data)
    for endpoint in (CHAT, COMPLETIONS, EMBEDDINGS):
        if endpoint.content[0] in members:
            return endpoint
    message = "the body has no `messages`, `prompt` or `input`: send it as to one of the endpoints"
    raise ApiError(400, message, code="missing_content")


def refuse_bomb(data: bytes) -> None:
    """To be called before anything is decoded.

    Raises:
        ApiError: 400, the body would take gigabytes.
    """
    if len(data) > _LARGE_BYTES and sum(map(data.count, (b"{", b"[", b","))) > STRUCTURE_MAX:
        message = f"the body has more than {STRUCTURE_MAX} parts (brackets and commas)"
        raise ApiError(400, message, code="body_too_complex")


def _members(data: bytes) -> Members:
    refuse_bomb(data)
    try:
        if not data.isascii():
            data.decode()  # what the gateway does not read would else reach an engine unlooked at
        members = msgspec.json.decode(data, type=Members)
        if not _is_all(members, data):
            json.loads(data, object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        raise nested_too_deeply() from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise not_json(data, error) from None
    return members


def _is_all(members: Members, data: bytes) -> bool:
    """Whether these members are the whole body, written in one of the two usual ways.

    Two members of one name are read differently by different parsers. Looking for them takes ten
    times as long as this comparison, which nearly every request passes.
    """
    data = data.strip()
    if msgspec.json.encode(members) == data:
        return True
    spaced = b", ".join(msgspec.json.encode(k) + b": " + bytes(v) for k, v in members.items())
    return b"{%b}" % spaced == data


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the field {json.dumps(twice[:80])} is there twice")
    return members


def _decoded(members: Members, name: str) -> Any:
    return msgspec.json.decode(members[name]) if name in members else None


def _check_content(members: Members, endpoint: Endpoint) -> None:
    if not endpoint.content:
        return
    name = next((n for n in endpoint.content if n in members), endpoint.content[0])
    raw = bytes(members.get(name, b"")).lstrip()
    if name == "messages":
        good = raw[:1] == b"[" and raw[1:].lstrip()[:1] == b"{"
    elif name == "tokens":
        good = raw[:1] == b"["
    else:
        good = raw[:1] in (b'"', b"[", b"{") and raw not in (b"[]", b"{}")
    if not good:
        message = f"`{name}` is missing or wrong; expected {_WHAT.get(name, _TEXT_OR_ARRAY)}"
        raise ApiError(400, message, code=f"missing_{name}", param=name)


def _check_fields(members: Members, endpoint: Endpoint, data: bytes) -> None:
    try:
        mistake = find_mistake(endpoint.name, data, members)
        if mistake is None and endpoint.need is Need.UNCOUNTED:
            msgspec.json.decode(data)  # who counts decodes all of it
    except RecursionError:
        raise nested_too_deeply() from None
    except msgspec.DecodeError as error:
        raise not_json(data, error) from None
    if mistake is not None:
        message = f"`{mistake.where}` is wrong: {mistake.what}"
        raise ApiError(400, message, code="invalid_field", param=mistake.field)


# -- errors -------------------------------------------------------------------------------------


def not_json(body: bytes, error: Exception) -> ApiError:
    message = f"the body is not a JSON object: {error}" if body else "the body is empty"
    return ApiError(400, message, code="invalid_json")


def nested_too_deeply() -> ApiError:
    return ApiError(400, "the body is nested too deeply", code="invalid_json")


def too_long(endpoint: Endpoint, message: str) -> ApiError:
    """400: the prompt, or prompt and answer, fit into no context."""
    param = endpoint.content[0] if endpoint.content else None
    return ApiError(400, message, code="context_length_exceeded", param=param)


# -- changes ------------------------------------------------------------------------------------


def with_answer_limit(body: bytes, answer_tokens: int) -> bytes:
    """The request with its own maximum of the answer lowered; all else as it came."""
    request = msgspec.json.decode(body, type=Members)
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict"):
        value = _decoded(request, name)
        if isinstance(value, int) and value > answer_tokens:
            request[name] = msgspec.Raw(b"%d" % answer_tokens)
    return msgspec.json.encode(request)


def rewritten(body: bytes, rewrite: RewriteConfig) -> bytes:
    """The request as the model's `rewrite` wants it; fields that it does not name as they came."""
    request = msgspec.json.decode(body, type=Members)
    for name in rewrite.remove:
        request.pop(name, None)
    for name, value in rewrite.default.items():
        if name not in request or bytes(request[name]) == b"null":
            request[name] = msgspec.Raw(value)
    for name, value in rewrite.set.items():
        request[name] = msgspec.Raw(value)
    return msgspec.json.encode(request)
