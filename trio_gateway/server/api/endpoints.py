"""The endpoints, in one table: it drives the routing, `docs/api.md`, `/openapi.json` and the tests.

Paths have `{name}` where a part of them is a value; `{model}` and `{rest}` may have slashes in
them, as model names do. Over 350 lines because it is one table.
"""

from __future__ import annotations

import msgspec

from trio_gateway.server.api.endpoint import Body, Endpoint, Family, ModelIn, Need


def _openai(name: str, summary: str, **fields: object) -> Endpoint:
    paths = (f"/v1/{name}", f"/{name}")
    row = Endpoint(
        name=name, paths=paths, family=Family.OPENAI, summary=summary, engine_path=paths[0]
    )
    return msgspec.structs.replace(row, **fields)


def _form(name: str, summary: str, **fields: object) -> Endpoint:
    row = _openai(name, summary, body=Body.FORM, model_in=ModelIn.FORM, handler="handle_form")
    return msgspec.structs.replace(row, **fields)


def _llamacpp(name: str, path: str, summary: str, **fields: object) -> Endpoint:
    row = Endpoint(
        name=name, paths=(path,), family=Family.LLAMACPP, summary=summary, engine_path=path
    )
    return msgspec.structs.replace(row, **{"model_in": ModelIn.BODY_OR_NONE, **fields})


def _anthropic(name: str, summary: str, **fields: object) -> Endpoint:
    path = f"/v1/{name}"
    row = Endpoint(
        name=name, paths=(path,), family=Family.ANTHROPIC, summary=summary, engine_path=path
    )
    return msgspec.structs.replace(row, content=("messages",), **fields)


def _gateway(name: str, path: str, summary: str, handler: str, **fields: object) -> Endpoint:
    row = Endpoint(
        name=name,
        paths=(path,),
        family=Family.GATEWAY,
        summary=summary,
        methods=("GET",),
        body=Body.NONE,
        model_in=ModelIn.NOWHERE,
        need=Need.NO_ENGINE,
        handler=handler,
    )
    return msgspec.structs.replace(row, **fields)


def _ollama(name: str, summary: str, **fields: object) -> Endpoint:
    row = Endpoint(
        name=f"api/{name}",
        paths=(f"/api/{name}",),
        family=Family.OLLAMA,
        summary=summary,
        handler="handle_ollama_call",
    )
    return msgspec.structs.replace(row, **fields)


def _ollama_cannot(name: str, *methods: str, path: str = "") -> Endpoint:
    row = _ollama(
        name, "Not supported: 501.", body=Body.ANY, model_in=ModelIn.NOWHERE,
        need=Need.NO_ENGINE, handler="handle_ollama_cannot", methods=methods,
    )  # fmt: skip
    return msgspec.structs.replace(row, paths=(path or f"/api/{name}",))


# What several rows share.
_ASKS: dict[str, object] = {
    "methods": ("GET",), "body": Body.NONE, "model_in": ModelIn.NOWHERE, "need": Need.NO_ENGINE,
}  # fmt: skip
_ASKS_ENGINE: dict[str, object] = {
    "methods": ("GET",), "body": Body.NONE, "model_in": ModelIn.QUERY_OR_RUNNING,
    "handler": "handle_asked",
}  # fmt: skip
_TO_MODEL: dict[str, object] = {"methods": ("POST",), "model_in": ModelIn.PATH}

CHAT = _openai(
    "chat/completions",
    "Answer a chat.",
    need=Need.CHAT,
    content=("messages",),
    streams=True,
)
COMPLETIONS = _openai(
    "completions",
    "Continue a text. §",
    need=Need.PROMPT,
    content=("prompt",),
    streams=True,
    handler="handle_either_form",
)
EMBEDDINGS = _openai(
    "embeddings",
    "Turn texts into vectors. §",
    need=Need.INPUT,
    content=("input",),
    handler="handle_either_form",
)

OPENAI = (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    _openai(
        "responses",
        "Answer a chat, in the shape of the Responses API.",
        need=Need.RESPONSES,
        content=("input",),
        streams=True,
    ),
    _openai(
        "models",
        "List the models; with `?own=true` those that no other gateway has brought, each with its "
        "endpoints.",
        **_ASKS,
        engine_path=None,
        handler="handle_models_list",
    ),
    _openai(
        "models/{model}",
        "Describe a model.",
        **{**_ASKS, "model_in": ModelIn.PATH},
        engine_path=None,
        handler="handle_model_info",
    ),
    _openai("audio/speech", "Turn a text into speech.", content=("input",)),
    _openai("images/generations", "Make images from a text.", content=("prompt",)),
)

FORMS = (
    _form("audio/transcriptions", "Transcribe an audio file."),
    _form("audio/translations", "Transcribe an audio file into English."),
    _form("images/edits", "Make an image from another image and a text.", body=Body.FORM_OR_JSON),
)

REALTIME = _openai(
    "realtime",
    "Talk to a model over a WebSocket, passed through to its engine.",
    **{**_ASKS_ENGINE, "model_in": ModelIn.QUERY, "handler": "handle_realtime"},
)

COMPLETION = _llamacpp(
    "completion",
    "/completion",
    "Continue a text, with llama.cpp's own fields.",
    need=Need.PROMPT,
    content=("prompt",),
    streams=True,
)
EMBEDDING = _llamacpp(
    "embedding",
    "/embedding",
    "Turn texts into vectors, in llama.cpp's own shape.",
    need=Need.CONTENT,
    content=("content", "input"),
)
INFILL = _llamacpp(
    "infill",
    "/infill",
    "Fill a gap in code.",
    need=Need.INFILL,
    content=("input_prefix", "input_suffix"),
    streams=True,
)

LLAMACPP = (
    _llamacpp(
        "chat/completions/input_tokens",
        "/v1/chat/completions/input_tokens",
        "Count the tokens of a chat.",
        paths=("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"),
        content=("messages",),
        model_in=ModelIn.BODY,
    ),
    _llamacpp(
        "responses/input_tokens",
        "/v1/responses/input_tokens",
        "Count the tokens of a request of the Responses API.",
        paths=("/v1/responses/input_tokens", "/responses/input_tokens"),
        content=("input",),
        model_in=ModelIn.BODY,
    ),
    COMPLETION,
    INFILL,
    _llamacpp("tokenize", "/tokenize", "Turn a text into tokens.", content=("content",)),
    _llamacpp("detokenize", "/detokenize", "Turn tokens into text.", content=("tokens",)),
    _llamacpp(
        "apply-template", "/apply-template", "Render a chat as a prompt.", content=("messages",)
    ),
    EMBEDDING,
    _llamacpp(
        "rerank",
        "/v1/rerank",
        "Sort documents by how well they answer a query.",
        paths=("/v1/rerank", "/rerank", "/v1/reranking", "/reranking"),
        need=Need.RERANK,
        content=("query",),
    ),
    _llamacpp("props", "/props", "What an engine of the model says about itself.", **_ASKS_ENGINE),
    _llamacpp("slots", "/slots", "What the slots of an engine of the model do.", **_ASKS_ENGINE),
    _llamacpp(
        "slots/{slot}",
        "/slots/{slot}",
        "Save, restore or erase a slot, by `?action=`. `model` in the body will do, too.",
        body=Body.JSON_OR_NONE,
        model_in=ModelIn.QUERY_OR_RUNNING,
        handler="handle_slot_action",
    ),
    _llamacpp(
        "lora-adapters",
        "/lora-adapters",
        "The LoRA adapters of an engine of the model; POST changes their scales until it stops, "
        "and needs an admin's key.",
        methods=("GET", "POST"),
        body=Body.JSON_ARRAY,
        model_in=ModelIn.QUERY_OR_RUNNING,
        handler="handle_lora_adapters",
    ),
)

ANTHROPIC = (
    _anthropic("messages", "Answer a chat in Anthropic's shape.", need=Need.MESSAGES, streams=True),
    _anthropic("messages/count_tokens", "Count the tokens of a chat."),
)

OLLAMA_CANNOT = {
    "api/pull": "pull models",
    "api/push": "push models",
    "api/create": "create models",
    "api/copy": "copy models",
    "api/delete": "delete models",
    "api/blobs": "accept model files",
}

OLLAMA = (
    _ollama("chat", "Answer a chat.", need=Need.CHAT, streams=True),
    _ollama("generate", "Answer a prompt.", need=Need.CHAT, streams=True),
    _ollama("embed", "Turn texts into vectors.", need=Need.INPUT),
    _ollama("embeddings", "Turn a text into a vector.", need=Need.INPUT),
    _ollama("tags", "List the models.", handler="handle_ollama_tags", **_ASKS),
    _ollama("ps", "List the running engines.", handler="handle_ollama_ps", **_ASKS),
    _ollama(
        "version", "The version that clients ask for.", handler="handle_ollama_version", **_ASKS
    ),
    _ollama("show", "Describe a model.", need=Need.NO_ENGINE, handler="handle_ollama_show"),
    _ollama_cannot("pull", "POST"),
    _ollama_cannot("push", "POST"),
    _ollama_cannot("create", "POST"),
    _ollama_cannot("copy", "POST"),
    _ollama_cannot("delete", "DELETE"),
    _ollama_cannot("blobs", "HEAD", "POST", path="/api/blobs/{digest}"),
    _ollama(
        "root",
        "Say that it is running; a browser is led to the page.",
        handler="handle_root",
        **_ASKS,
        paths=("/",),
    ),
)

GATEWAY = (
    _gateway(
        "health",
        "/health",
        "Whether the gateway is serving.",
        "handle_health",
        paths=("/health", "/v1/health"),
    ),
    _gateway(
        "page",
        "/ui/",
        "The page that shows what the gateway does, for browsers.",
        "handle_page",
        paths=("/ui/", "/ui", "/ui/{file}"),
    ),
    _gateway("openapi", "/openapi.json", "This API as an OpenAPI document.", "handle_openapi"),
    _gateway(
        "configuration",
        "/gateway/configuration",
        "The configuration in force, with its secrets left out, notes, and what is missing.",
        "handle_configuration",
    ),
    _gateway("metrics", "/metrics", "What Prometheus scrapes.", "handle_metrics"),
    _gateway("queue", "/gateway/queue", "The waiting requests.", "handle_queue"),
    _gateway("engines", "/gateway/engines", "The running engines.", "handle_engines"),
    _gateway(
        "events",
        "/gateway/events",
        "What the gateway is doing: first all of it, then what changes.",
        "handle_events",
        streams=True,
    ),
    _gateway(
        "logs",
        "/gateway/logs",
        "The last lines of the gateway's log; with `?engine=MODEL` what engines of the model have "
        "printed, also those that are gone. `?lines=` says how many, up to 2,000; `?follow=1` goes "
        "on with those that come.",
        "handle_logs",
        streams=True,
    ),
    _gateway(
        "gateway models",
        "/gateway/models",
        "The models with what is known of their variants.",
        "handle_gateway_models",
    ),
    _gateway(
        "requests",
        "/gateway/requests",
        "The requests that are under way and those that are over, the newest first.",
        "handle_requests",
    ),
    _gateway(
        "usage",
        "/gateway/usage",
        "What the requests that are over used, by model, client or day.",
        "handle_usage",
    ),
    _gateway(
        "cancel",
        "/gateway/requests/{id}/cancel",
        "End a request that is under way; its client is told.",
        "handle_cancel",
        methods=("POST",),
    ),
    _gateway(
        "captures",
        "/gateway/captures",
        "What was recorded of requests; POST records the next `count` of a model in memory, for "
        "`seconds`; DELETE forgets them.",
        "handle_captures",
        methods=("GET", "POST", "DELETE"),
        body=Body.JSON,
        model_in=ModelIn.BODY_OR_NONE,
    ),
    _gateway(
        "yield",
        "/gateway/yield",
        "The memory that is kept free for other programs. POST asks for some, and is answered once "
        "the room is there; with `stream` it is kept for as long as the connection is open.",
        "handle_yields",
        methods=("GET", "POST"),
        body=Body.JSON,
        streams=True,
    ),
    _gateway(
        "yield end",
        "/gateway/yield/{id}",
        "The other program is done: engines may have its memory again.",
        "handle_yield_end",
        methods=("DELETE",),
    ),
    _gateway(
        "peers",
        "/gateway/peers",
        "The other gateways whose models are offered here: whether they answer, and with what.",
        "handle_peers",
    ),
    _gateway(
        "choices",
        "/gateway/choices",
        "The names that mean one of several models, and which one a request would get now.",
        "handle_choices",
    ),
    _gateway(
        "choose",
        "/gateway/choices/{model}",
        'Pin one of a choice\'s models until the next reload: `{"use": "MODEL"}`; `{"use": null}` '
        "undoes that.",
        "handle_choose",
        methods=("POST",),
        body=Body.JSON,
        model_in=ModelIn.PATH,
    ),
    _gateway(
        "reload",
        "/gateway/reload",
        "Read the configuration anew: what is other takes effect, engines of what is not live on.",
        "handle_reload",
        methods=("POST",),
    ),
    _gateway(
        "explain",
        "/gateway/explain",
        "What would happen to a request, and why; nothing is started. `?endpoint=` names its "
        "endpoint where its fields do not tell.",
        "handle_explain",
        methods=("POST",),
        body=Body.JSON,
        model_in=ModelIn.BODY,
    ),
    _gateway(
        "load",
        "/gateway/models/{model}/load",
        "Start an engine of the model, and wait until it is ready.",
        "handle_load",
        **_TO_MODEL,
    ),
    _gateway(
        "unload",
        "/gateway/models/{model}/unload",
        "Stop the model's engines once their requests are done, or at once with `?force=true`.",
        "handle_unload",
        **_TO_MODEL,
    ),
    _gateway(
        "pin",
        "/gateway/models/{model}/pin",
        "Keep the model's engines loaded; `?pinned=false` undoes that.",
        "handle_pin",
        **_TO_MODEL,
    ),
    _gateway(
        "model facts",
        "/gateway/models/{model}",
        "A model, and how accurate its token counts were.",
        "handle_model_facts",
        model_in=ModelIn.PATH,
    ),
    _gateway(
        "upstream",
        "/upstream/{model}/{rest}",
        "Anything that an engine of the model serves, including its web page.",
        "handle_upstream",
        methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        body=Body.ANY,
        model_in=ModelIn.PATH,
        need=Need.UNCOUNTED,
    ),
)

ENDPOINTS = (*OPENAI, *FORMS, REALTIME, *LLAMACPP, *ANTHROPIC, *OLLAMA, *GATEWAY)
