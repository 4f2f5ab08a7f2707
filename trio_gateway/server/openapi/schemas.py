"""The JSON schemas of `/openapi.json`: of bodies, answers and errors. Pure.

Those of bodies are made of the types that the gateway checks by (`request_fields.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.engine.overview import EngineRow, TicketRow
from trio_gateway.engine.resources import ModelRow
from trio_gateway.engine.scheduling.model_load import LoadState
from trio_gateway.lines import KEPT
from trio_gateway.server.api.endpoint import Endpoint, ModelIn
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.request_content import may_be_empty
from trio_gateway.server.api.request_fields import FIELDS, AnyFields, fields_of
from trio_gateway.server.budget import Budget
from trio_gateway.server.feed.rows import UsableModel
from trio_gateway.server.fleet.peers import PeerRow
from trio_gateway.server.history.recorder import CapturesWanted
from trio_gateway.server.ollama.request import REQUESTS
from trio_gateway.server.records.request_row import RequestRow

Json = dict[str, Any]

_STRING = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_MODEL_NAME = {
    "type": "string",
    "minLength": 1,
    "description": "A model, as GET /v1/models lists it: `name`, `name:variant` or `name@8192`.",
}
_FILE = {"type": "string", "format": "binary"}
_FORM_FILES = {
    "audio/transcriptions": "file",
    "audio/translations": "file",
    "images/edits": "image",
}


def reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _without_titles(schema: Any) -> Any:
    """msgspec's schemas without what only repeats a name, or says that null is the default."""
    match schema:
        case {"properties": properties}:
            return {
                "type": "object",
                "required": schema["required"],
                "properties": {name: _without_titles(kind) for name, kind in properties.items()},
            }
        case dict():
            return {key: _without_titles(kind) for key, kind in schema.items() if key != "default"}
        case list():
            return [_without_titles(value) for value in schema]
    return schema


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": [*properties], "properties": properties}


def _list_of(schema: Json) -> Json:
    return {"type": "array", "items": schema}


_BODIES: Mapping[str, type[msgspec.Struct]] = {**REQUESTS, "captures": CapturesWanted}


def _components() -> dict[str, Json]:
    rows = (TicketRow, EngineRow, ModelRow, UsableModel, RequestRow, PeerRow)
    kinds = dict.fromkeys([AnyFields, *FIELDS.values(), *_BODIES.values(), *rows])
    _, made = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    error = _object(message=_STRING)
    # An engine's code is a number, and some engines leave these out.
    error["properties"] |= {
        "type": _STRING,
        "param": _TEXT_OR_NULL,
        "code": {"type": ["string", "integer", "null"]},
        "engine_output": _list_of(_STRING),
        "n_prompt_tokens": {"type": "integer"},
        "n_ctx": {"type": "integer"},
    }
    model = _object(
        id=_STRING,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_STRING,
        context_length={"type": "integer"},
        max_model_len={"type": "integer"},
        meta={"type": "object", "additionalProperties": {"type": "integer"}},
        status=_object(value={"enum": [state.value for state in LoadState]}),
        contexts=_list_of({"type": "integer"}),
        loaded={"type": "boolean"},
        loaded_variant=_TEXT_OR_NULL,
    )
    # Left out where it is not known; in Anthropic's shape an object.
    model["properties"]["capabilities"] = {"type": ["array", "object"]}
    anthropic = _object(type={"const": "error"}, error=_object(type=_STRING, message=_STRING))
    return {
        **{name: _without_titles(schema) for name, schema in made.items()},
        "Error": _object(error=error),
        "AnthropicError": anthropic,
        "AnyError": {"anyOf": [reference("Error"), reference("AnthropicError")]},
        "OllamaError": _object(error=_STRING),
        "Model": model,
    }


COMPONENTS = _components()

_PAGE = _object(has_more={"type": "boolean"}, data=_list_of(reference("Model")))
ANSWERS: Mapping[str, Json] = {
    "health": _object(status={"const": "ok"}),
    "models": {
        "anyOf": [_object(object={"const": "list"}, data=_list_of(reference("Model"))), _PAGE]
    },
    "models/{model}": reference("Model"),
    "model facts": reference("Model"),
    "queue": _object(
        tickets=_list_of(reference("TicketRow")),
        waiting={"type": "integer"},
        running={"type": "integer"},
        held=_object(**{name: {"type": "integer"} for name in Budget().facts()}),
    ),
    "engines": _object(
        engines=_list_of(reference("EngineRow")),
        kv_carryover={"type": "object"},
        last_run={"type": ["object", "null"]},
    ),
    "gateway models": _object(
        models={"anyOf": [_list_of(reference("ModelRow")), _list_of(reference("UsableModel"))]}
    ),
    "requests": _object(requests=_list_of(reference("RequestRow")), more={"type": "boolean"}),
    "usage": _object(by=_STRING, usage=_list_of({"type": "object"})),
    "cancel": _object(id=_STRING, cancelled={"const": True}, stage=_STRING),
    "captures": _object(
        recording={"type": ["object", "null"]}, captures=_list_of({"type": "object"})
    ),
    "yield": {"anyOf": [_object(yields=_list_of({"type": "object"})), {"type": "object"}]},
    "yield end": _object(id={"type": "integer"}, ended={"const": True}),
    "peers": _object(peers=_list_of(reference("PeerRow"))),
    "choices": _object(choices=_list_of({"type": "object"})),
    "choose": {"type": "object"},
    "reload": _object(
        changes=_list_of(_STRING), needs_restart={"type": "boolean"}, notes=_list_of(_STRING)
    ),
    "load": _object(model=_STRING, variant=_STRING, decision=_STRING),
    "unload": _object(model=_STRING, engines_stopped={"type": "integer"}),
    "pin": _object(model=_STRING, pinned={"type": "boolean"}),
    "explain": {"type": "object"},
    "openapi": {"type": "object"},
    "api/version": _object(version=_STRING),
    "api/tags": _object(models=_list_of({"type": "object"})),
    "api/ps": _object(models=_list_of({"type": "object"})),
}


def _flag(name: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "boolean"}}


def _text(name: str) -> Json:
    return {"name": name, "in": "query", "schema": _STRING}


_MOMENTS = {
    "since": {
        **_text("since"),
        "description": "Unix time, a date, or how long ago (`30m`, `7d`): those that came since.",
    },
    "before": {
        **_text("before"),
        "description": "The id of a request, or a time as in `since`: those that came before.",
    },
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
}
_BY = {"name": "by", "in": "query", "schema": {"enum": ["model", "client", "day"]}}
_VERSION = {
    "name": "anthropic-version",
    "in": "header",
    "description": "Asks for the answer in Anthropic's shape.",
    "schema": _STRING,
}
_ACTION = {
    "name": "action",
    "in": "query",
    "required": True,
    "schema": {"enum": ["save", "restore", "erase"]},
}
# Besides those that follow from the table.
_ENDPOINT: Json = {
    "name": "endpoint",
    "in": "query",
    "description": "The endpoint that the request is for, or its path. Default: inferred.",
    "schema": {"enum": [row.name for row in ENDPOINTS if row.is_counted]},
}
_LAST_EVENT = {
    "in": "header",
    "name": "Last-Event-ID",
    "description": "The `id` of the last event that the client has; or `?last_event_id=`.",
    "schema": _STRING,
}
_LINES = {
    "name": "lines",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "maximum": KEPT},
}
_OF_USAGE = (*map(_text, ("model", "client")), _MOMENTS["since"])
PARAMETERS: Mapping[str, tuple[Json, ...]] = {
    "events": (
        _LAST_EVENT,
        {
            "name": "logs",
            "in": "query",
            "description": "A log to follow as well, as `engine` of `/gateway/logs` names them; "
            "more than one may be given.",
            "schema": _STRING,
        },
        _LINES,
    ),
    "logs": (
        {
            "name": "engine",
            "in": "query",
            "description": "`gateway`, a model, or `model:variant`; more than one may be given.",
            "schema": _STRING,
        },
        _LINES,
        _flag("follow"),
    ),
    "explain": (_ENDPOINT,),
    "requests": (*_OF_USAGE, _text("status"), _LIMIT, _MOMENTS["before"]),
    "usage": (_BY, *_OF_USAGE, _text("status")),
    "unload": (_flag("force"),),
    "pin": (_flag("pinned"),),
    "models": (_VERSION,),
    "models/{model}": (_VERSION,),
    "slots/{slot}": (_ACTION,),
}


def json_schema(endpoint: Endpoint) -> Json:
    """Of a body: the known fields, and which of them must be there. Others are passed on."""
    kind = _BODIES.get(endpoint.name) or fields_of(endpoint.name)
    known = COMPONENTS[kind.__name__]["properties"]
    properties, required = {**known, "model": _MODEL_NAME}, []
    if endpoint.model_in is ModelIn.BODY:
        required.append("model")
    for name in endpoint.content:
        least = 0 if may_be_empty(endpoint.name, name) else 1
        properties[name] = _filled(properties.get(name, {}), least)
    schema: Json = {"type": "object", "properties": properties}
    if len(endpoint.content) > 1:
        schema["anyOf"] = [{"required": [name]} for name in endpoint.content]
    else:
        required += endpoint.content
    return {**schema, "required": required} if required else schema


def _filled(schema: Json, least: int) -> Json:
    """Of a field that must be there: not null, no empty object, and no array of fewer entries."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    filled = [
        {
            **kind,
            **({"minItems": least} if least and kind.get("type") == "array" else {}),
            **({"minProperties": 1} if kind.get("type") == "object" else {}),
        }
        for kind in kinds
    ]
    return filled[0] if len(filled) == 1 else {"anyOf": filled}


def form_schema(endpoint: Endpoint) -> Json:
    properties: Json = {"model": _MODEL_NAME}
    required = ["model"]
    if (file := _FORM_FILES.get(endpoint.name)) is not None:
        properties[file] = _FILE
        required.append(file)
    return {"type": "object", "properties": properties, "required": required}


def any_body_schema() -> Json:
    return _FILE
