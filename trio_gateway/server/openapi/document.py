"""`/openapi.json`: the table of endpoints as an OpenAPI 3.1 document. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from trio_gateway import __version__
from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.config.priority import Priority
from trio_gateway.server.access.caller import KEEPALIVE_HEADER, PRIORITY_HEADER
from trio_gateway.server.api.endpoint import Body, Endpoint, Family, ModelIn
from trio_gateway.server.api.endpoints import ENDPOINTS, OLLAMA_CANNOT, REALTIME
from trio_gateway.server.api.own_form import OWN_FORMS
from trio_gateway.server.openapi.schemas import (
    ANSWERS,
    COMPONENTS,
    PARAMETERS,
    any_body_schema,
    form_schema,
    json_schema,
    reference,
)

Json = dict[str, Any]

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
JSON = "application/json"
ANYTHING = "*/*"
OPENMETRICS = "application/openmetrics-text"

_ERROR_SCHEMAS = {Family.ANTHROPIC: "AnthropicError", Family.OLLAMA: "OllamaError"}
# By status: when it is given.
_ALWAYS = {
    "400": "The request is wrong; the message says what.",
    "401": "The API key is missing or wrong.",
    "403": "The key, the host or the web page may not do this.",
    "503": "The gateway is stopping.",
}
_WITH_MODEL = {"404": "There is no such model; the message lists similar names."}
_WITH_BODY = {
    "408": "The body did not arrive in time.",
    "413": "The body is larger than `max_body_size`.",
    "415": "The body is compressed.",
}
_WITH_ENGINE = {
    "429": "The queue is full; `Retry-After` says when to ask again.",
    "499": "Somebody has cancelled the request.",
    "502": "The engine did not start, crashed, or its answer is not valid.",
    "503": "The gateway is stopping, or waiting after failed starts; `Retry-After` says how long.",
    "504": "The engine did not start in time, or the request waited too long.",
    "4XX": "The engine's own error.",
    "5XX": "The engine's own error.",
}
_WITH_FILE = {"404": "The page has no such file."}
_WITH_REQUEST = {"404": "There is no such request.", "409": "The request is over."}
_WITH_YIELD = {"404": "There is no such yield."}
_NO_ROOM = {"409": "There is no such room now: others hold it."}
_NO_UPGRADE = {"426": "The request is not a WebSocket handshake."}
_NOT_HERE = {"501": "The gateway does not do this; the message says what does."}


def document(endpoints: Iterable[Endpoint] = ENDPOINTS) -> Json:
    """The whole document, as JSON values."""
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            for method in endpoint.methods:
                paths.setdefault(path, {})[method.lower()] = _operation(endpoint, path, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trio-gateway",
            "version": __version__,
            "description": "One address for all models of a machine. HEAD is allowed where GET is.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": family.value} for family in Family],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "responses": _responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


@functools.cache
def encoded() -> bytes:
    """The document of all endpoints."""
    return msgspec.json.encode(document())


def _operation(endpoint: Endpoint, path: str, method: str) -> Json:
    operation: Json = {
        "operationId": f"{method.lower()}_{_identifier(path)}",
        "tags": [endpoint.family.value],
        "summary": endpoint.summary,
        "parameters": [*_parameters(endpoint, path)],
        "responses": {**_good(endpoint), **_bad(endpoint)},
    }
    if endpoint.needs_engine:
        operation["description"] = f"Counted: {endpoint.need.value}."
    if endpoint.body is not Body.NONE and method not in ("GET", "DELETE"):
        operation["requestBody"] = {
            "required": endpoint.body not in (Body.ANY, Body.JSON_OR_NONE),
            "content": _content(OWN_FORMS.get(path, endpoint)),  # which takes more
        }
    return operation


def _identifier(path: str) -> str:
    """A slash at its end counts: with and without it are two paths."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"[{}]", "", path.lower())).lstrip("_")


def _parameters(endpoint: Endpoint, path: str) -> Iterator[Json]:
    for name in re.findall(r"\{(\w+)\}", path):
        text = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": text}
    if endpoint.model_in in (ModelIn.QUERY, ModelIn.QUERY_OR_RUNNING):
        yield {"name": "model", "in": "query", "schema": {"type": "string", "minLength": 1}}
    yield from PARAMETERS.get(endpoint.name, ())
    if endpoint.needs_engine:
        urgency = {"type": "string", "enum": [known.word for known in Priority]}
        yield {"name": PRIORITY_HEADER, "in": "header", "schema": urgency}
    if endpoint.streams and endpoint.needs_engine:
        style = {"type": "string", "enum": [known.value for known in KeepaliveStyle]}
        yield {"name": KEEPALIVE_HEADER, "in": "header", "schema": style}


def _content(endpoint: Endpoint) -> Json:
    match endpoint.body:
        case Body.JSON | Body.JSON_OR_NONE:
            return {JSON: {"schema": json_schema(endpoint)}}
        case Body.JSON_ARRAY:
            return {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}}
        case Body.FORM:
            return {"multipart/form-data": {"schema": form_schema(endpoint)}}
        case Body.FORM_OR_JSON:
            return {
                "multipart/form-data": {"schema": form_schema(endpoint)},
                JSON: {"schema": json_schema(endpoint)},
            }
    return {ANYTHING: {"schema": any_body_schema()}}


def _good(endpoint: Endpoint) -> Json:
    if endpoint.name in OLLAMA_CANNOT:
        return {}
    if endpoint.name == REALTIME.name:
        return {"101": {"description": "The WebSocket is open."}}
    if endpoint.name == "api/root":
        return {"200": _answer("The gateway is running.", {"text/plain": {}})}
    if endpoint.name == "page":
        return {"200": _answer("The page, or a file of it.", {ANYTHING: {}})}
    if endpoint.name == "metrics":
        return {"200": _answer("The metrics.", {"text/plain": {}, OPENMETRICS: {}})}
    if endpoint.body is Body.ANY:
        return {"default": _answer("The engine's answer.", {ANYTHING: {}})}
    content: Json = {JSON: {"schema": ANSWERS.get(endpoint.name, {"type": ["object", "array"]})}}
    if endpoint.name == "audio/speech":
        content = {ANYTHING: {}}
    if endpoint.name == "yield":
        content[LINES] = {}
    elif endpoint.streams and not endpoint.needs_engine:
        content = {EVENTS: {}} if endpoint.name == "events" else {LINES: {}, EVENTS: {}}
    elif endpoint.streams:
        kind = LINES if endpoint.family is Family.OLLAMA else EVENTS
        content[kind] = {}  # a schema would be read as that of each event
    return {"200": _answer("The answer.", content)}


def _bad(endpoint: Endpoint) -> Json:
    errors: dict[str, str] = dict(_ALWAYS)
    if endpoint.model_in is not ModelIn.NOWHERE:
        errors |= _WITH_MODEL
    if endpoint.body is not Body.NONE:
        errors |= _WITH_BODY
    if endpoint.name == "cancel":
        errors |= _WITH_REQUEST
    if endpoint.name == "page":
        errors |= _WITH_FILE
    if endpoint.name == "yield":
        errors |= _NO_ROOM
    if endpoint.name == "yield end":
        errors |= _WITH_YIELD
    # Loading a model takes an engine as well, though not its answer.
    if endpoint.needs_engine or endpoint.name == "load" or endpoint.family is Family.OLLAMA:
        errors |= _WITH_ENGINE
    if endpoint.name in OLLAMA_CANNOT:
        errors |= _NOT_HERE
    if endpoint.name == REALTIME.name:
        errors |= _NO_UPGRADE
    shape = _shape(endpoint)
    return {
        status: {"$ref": f"#/components/responses/{_response_name(shape, status, text)}"}
        for status, text in errors.items()
    }


def _shape(endpoint: Endpoint) -> str:
    if endpoint.name in ("models", "models/{model}"):  # Anthropic's clients also list them
        return "AnyError"
    return _ERROR_SCHEMAS.get(endpoint.family, "Error")


def _response_name(shape: str, status: str, text: str) -> str:
    kinds = {
        "Engine": _WITH_ENGINE,
        "Request": _WITH_REQUEST,
        "File": _WITH_FILE,
        "Yield": _WITH_YIELD,
        "Room": _NO_ROOM,
    }
    suffix = next((kind for kind, texts in kinds.items() if text == texts.get(status)), "")
    return f"{shape}{status}{suffix}"


def _responses() -> Json:
    """All error answers, by the names that `_bad` refers to."""
    made: Json = {}
    for shape in ("Error", "AnyError", *_ERROR_SCHEMAS.values()):
        for texts in (
            _ALWAYS, _WITH_MODEL, _WITH_BODY, _WITH_REQUEST, _WITH_FILE, _WITH_ENGINE,
            _WITH_YIELD, _NO_ROOM, _NO_UPGRADE, _NOT_HERE,
        ):  # fmt: skip
            for status, text in texts.items():
                content = {JSON: {"schema": reference(shape)}}
                made[_response_name(shape, status, text)] = _answer(text, content)
    return made


def _answer(description: str, content: Mapping[str, Any]) -> Json:
    return {"description": description, "content": dict(content)}
