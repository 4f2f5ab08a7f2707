"""A request's body: decoded once, checked, and the few members that the gateway may change.

"Once" means: one pass finds the members of the body (rawjson.members), and one more decodes them.
Nothing after that reads the body's bytes for what is in them: the check of the types, the count of
the tokens and the changes all work on what ParsedRequest carries.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trio_gateway import rawjson
from trio_gateway.config.schema import ModelConfig, RewriteConfig
from trio_gateway.models.need import counted_form
from trio_gateway.models.need.counted_form import CountedForm, as_is
from trio_gateway.models.need.messages_form import messages_as_chat
from trio_gateway.models.need.responses_form import responses_as_chat
from trio_gateway.rawjson import Members, NameTwice
from trio_gateway.server.api.billing_line import Found, find_billing_line, with_constant_line
from trio_gateway.server.api.context_errors import ANSWER_LIMITS
from trio_gateway.server.api.endpoint import Endpoint, ModelIn, Need
from trio_gateway.server.api.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.loading_state import may_have_sentences, without_sentences
from trio_gateway.server.api.request_content import check_content
from trio_gateway.server.api.request_fields import (
    KNOWN,
    Mistake,
    as_integer,
    decode_values,
    find_mistake,
)

_COUNTED_AS_IS: Mapping[Need, str] = {
    Need.CHAT: CHAT.name,
    Need.PROMPT: COMPLETIONS.name,
    Need.INPUT: EMBEDDINGS.name,
}
_COUNTED_AS: Mapping[Need, Callable[[dict[str, Any]], CountedForm]] = {
    Need.CONTENT: counted_form.embedding_as_input,
    Need.RESPONSES: responses_as_chat,
    Need.MESSAGES: messages_as_chat,
    Need.INFILL: counted_form.infill_as_prompt,
    Need.RERANK: counted_form.rerank_as_input,
}

# Decoding 64 MB of `{}` takes gigabytes, and counting their tokens minutes. No prompt of text has
# so many brackets and commas, and none of token ids so many ids.
STRUCTURE_MAX = 2_000_000
_LARGE_BYTES = 1_000_000
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Fields of the body itself. No API has a hundred.
MEMBERS_MAX = 10_000


class OpenRequest(msgspec.Struct, frozen=True):
    """A JSON request of which nothing is known but its model. That is told first: whether there is
    such a model, and who may have it, before anything else in it is looked at."""

    data: bytes
    members: Members
    endpoint: Endpoint
    model: str | None

    def read(self) -> ParsedRequest:
        """Its fields, decoded and checked.

        Raises:
            ApiError: 400, with what is wrong.
        """
        try:
            values = decode_values(self.data, self.members)
        except RecursionError:
            raise nested_too_deeply() from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise not_json(self.data, error) from None
        if isinstance(values, Mistake):
            raise _invalid(values)
        return _checked(ParsedRequest(self.data, self.members, values), self.endpoint)


class ParsedRequest(msgspec.Struct, frozen=True):
    """A JSON request that was read. `data`: as the engine is to get it, which is as it came until
    something changes it. `members`: its fields as they are written; `values`: the same, decoded."""

    data: bytes
    members: Members
    values: dict[str, Any]

    @property
    def model(self) -> str | None:
        """As the client wrote it; None: it names none, and need not."""
        name: str | None = self.values.get("model")
        return name

    @property
    def wants_stream(self) -> bool:
        """The answer is to come as events."""
        return self.values.get("stream") is True

    def counted(self, endpoint: Endpoint) -> CountedForm:
        """The request in the terms by which it is counted; of an endpoint that is counted.

        Raises:
            ApiError: 400, in these terms it is nested too deeply.
        """
        if (kind := _COUNTED_AS_IS.get(endpoint.need)) is not None:
            return as_is(kind, self.values, self.data)
        try:
            return _COUNTED_AS[endpoint.need](self.values)
        except RecursionError:
            raise nested_too_deeply() from None

    def read(self) -> ParsedRequest:
        """It was."""
        return self

    def with_constant_billing_line(self, found: Found) -> ParsedRequest:
        """With Claude Code's line made the same for all requests."""
        raw = with_constant_line(bytes(self.members[found.member]), found.places)
        data = rawjson.replace_member(self.data, found.member, raw, self.members)
        members = {**self.members, found.member: msgspec.Raw(raw)}
        return ParsedRequest(data, members, {**self.values, found.member: rawjson.decode(raw)})

    def without_sentences(self) -> ParsedRequest:
        """With nothing in its messages that was said while an earlier request waited."""
        raw = self.members.get("messages")
        if raw is None or not may_have_sentences(bytes(raw)):
            return self
        before = self.values["messages"]
        if (messages := without_sentences(before)) == before:
            return self
        cleaned = msgspec.json.encode(messages)
        data = rawjson.replace_member(self.data, "messages", cleaned, self.members)
        members = {**self.members, "messages": msgspec.Raw(cleaned)}
        return ParsedRequest(data, members, {**self.values, "messages": messages})

    def configured(self, model: ModelConfig) -> ParsedRequest:
        """As the model's configuration wants it."""
        request = self
        if model.constant_billing_line:
            line = find_billing_line(self.values, self.members)
            if line is not None:
                request = self.with_constant_billing_line(line)
        return request if model.rewrite is None else request.rewritten(model.rewrite)

    def rewritten(self, rewrite: RewriteConfig) -> ParsedRequest:
        """As the model's `rewrite` wants it; fields that it does not name as they came."""
        members = {n: raw for n, raw in self.members.items() if n not in rewrite.remove}
        missing = {
            name: value
            for name, value in rewrite.default.items()
            if name not in members or self.values[name] is None
        }
        added = {**missing, **rewrite.set}
        members |= {name: msgspec.Raw(value) for name, value in added.items()}
        values = {name: self.values[name] for name in members if name not in added}
        decoded = {name: msgspec.json.decode(value) for name, value in added.items()}
        values |= {n: as_integer(n, v) if type(v) is float else v for n, v in decoded.items()}
        return ParsedRequest(msgspec.json.encode(members), members, values)


def parse_request(data: bytes, endpoint: Endpoint) -> ParsedRequest:
    """Decode it; check what the gateway relies on, and the types of the fields that are known. All
    else is for the engine to judge.

    Raises:
        ApiError: 400, with what is wrong.
    """
    return open_request(data, endpoint).read()


def open_request(data: bytes, endpoint: Endpoint) -> OpenRequest:
    """Find its members, and the model among them.

    Raises:
        ApiError: 400, it is no JSON object, or names no model.
    """
    members = members_of(data)
    return OpenRequest(data, members, endpoint, model_of(members, endpoint))


def model_of(members: Members, endpoint: Endpoint) -> str | None:
    """The model that it names; None: it names none, and need not.

    Raises:
        ApiError: 400, it must name one.
    """
    model = None
    if (raw := members.get("model")) is not None:
        try:
            model = rawjson.decode(raw)
        except rawjson.NOT_JSON:
            raise missing_model() from None
    if model is None and endpoint.model_in is ModelIn.BODY_OR_NONE:
        return None
    if not isinstance(model, str) or not model:
        raise missing_model()
    return model


def made_request(values: dict[str, Any], endpoint: Endpoint) -> ParsedRequest:
    """What another API's request was translated to. There are no bytes of it yet to decode.

    Raises:
        ApiError: 400, as `parse_request`: the values are still the client's.
    """
    members = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}
    return _checked(ParsedRequest(msgspec.json.encode(members), members, values), endpoint)


def refuse_bomb(data: bytes) -> None:
    """To be called before anything is decoded.

    Raises:
        ApiError: 400, the body would take gigabytes.
    """
    if len(data) > _LARGE_BYTES and sum(map(data.count, (b"{", b"[", b","))) > STRUCTURE_MAX:
        message = f"the body has more than {STRUCTURE_MAX} parts (brackets and commas)"
        raise ApiError(400, message, code="body_too_complex")


def members_of(data: bytes) -> Members:
    """The fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object, or one that is not passed on.
    """
    refuse_bomb(data)
    try:
        if not data.isascii():
            data.decode()  # what the gateway does not read would reach an engine unchecked
        members = rawjson.members(data)
        if len(members) > MEMBERS_MAX:
            message = f"the body has more than {MEMBERS_MAX} fields"
            raise ApiError(400, message, code="body_too_complex")
        rawjson.check_names(data, members)
    except RecursionError:
        raise nested_too_deeply() from None
    except (msgspec.DecodeError, UnicodeDecodeError, NameTwice) as error:
        raise not_json(data, error) from None
    if KNOWN.issuperset(members):
        return members
    for name in members:
        # Engines written in Go take either for the model, and the last of them.
        if len(name) == 5 and name != "model" and name.casefold() == "model":
            message = f"the field `{name}` can be read as `model`; leave it out, or write `model`"
            raise ApiError(400, message, code="invalid_field", param=name)
    return members


def _checked(request: ParsedRequest, endpoint: Endpoint) -> ParsedRequest:
    check_content(request.values, endpoint)
    try:
        mistake = find_mistake(endpoint.name, request.members, request.values)
    except RecursionError:
        raise nested_too_deeply() from None
    if mistake is not None:
        raise _invalid(mistake)
    return request


# -- errors -------------------------------------------------------------------------------------


def missing_model() -> ApiError:
    message = "`model` is missing or not a string; GET /v1/models lists the names"
    return ApiError(400, message, code="missing_model", param="model")


def _invalid(mistake: Mistake) -> ApiError:
    message = f"`{mistake.where}` is wrong: {mistake.what}"
    return ApiError(400, message, code="invalid_field", param=mistake.field)


def not_json(body: bytes, error: Exception) -> ApiError:
    message = f"the body is not a JSON object: {error}" if body else "the body is empty"
    if body.startswith(_UTF16_MARKS):
        message = "the body is written in UTF-16; send it in UTF-8"
    return ApiError(400, message, code="invalid_json")


def nested_too_deeply() -> ApiError:
    return ApiError(400, "the body is nested too deeply", code="invalid_json")


# -- changes ------------------------------------------------------------------------------------


def with_answer_limit(members: Members, answer_tokens: int) -> Members:
    """With the request's own maximum of the answer lowered; everything else as it came."""
    request = dict(members)
    for name in ANSWER_LIMITS:
        value = rawjson.whole_number(rawjson.decode(request[name])) if name in request else None
        if value is not None and value > answer_tokens:
            request[name] = msgspec.Raw(b"%d" % answer_tokens)
    return request
