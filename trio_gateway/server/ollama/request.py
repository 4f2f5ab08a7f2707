"""An Ollama request as the matching OpenAI request. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_body import nested_too_deeply, not_json, refuse_bomb
from trio_gateway.server.api.request_fields import WholeFloat
from trio_gateway.server.ollama.messages import OllamaMessage, image_parts, openai_messages
from trio_gateway.server.ollama.options import (
    REPEAT_LAST_N,
    format_fields,
    keep_alive_s,
    sampling_fields,
    thinking_fields,
    wished_context,
)

MOST_TOP_LOGPROBS = 20
DIMENSIONS_MAX = 2**31 - 1
Whole = int | WholeFloat


class Kind(enum.Enum):
    """Ollama's endpoints that are translated; the value is the last part of their path."""

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"
    EMBEDDINGS = "embeddings"


class OllamaCall(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done for an Ollama request.

    `endpoint`: "chat/completions", "completions", "embeddings" or "infill". `fields`: of the
    request to it, but the model's name. `only_loads`: there is nothing to answer; the model is
    loaded, or unloaded if `keep_alive_s` is 0. `num_ctx`: the context that the client would like,
    in tokens. `keep_alive_s`: None: not said; `FOREVER_S`: pinned. `dimensions`: what embeddings
    are cut to.
    """

    kind: Kind
    model: str
    endpoint: str
    fields: dict[str, Any]
    only_loads: bool = False
    stream: bool = False
    num_ctx: int | None = None
    keep_alive_s: float | None = None
    dimensions: int | None = None

    def request(self, model: str, context: int) -> dict[str, Any]:
        """The request to `endpoint`, for the model of this name, whose largest context has so many
        tokens."""
        fields = self.fields
        if fields.get(REPEAT_LAST_N, 0) < 0:  # all of them, which engines have no number for
            fields = {**fields, REPEAT_LAST_N: context}
        return {"model": model, **fields}

    @property
    def unloads(self) -> bool:
        return self.only_loads and self.keep_alive_s == 0


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class _Generating(_Request, frozen=True, kw_only=True):
    stream: bool | None = None
    format: Any = None
    think: Any = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = None


class _ChatRequest(_Generating, frozen=True, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any]] | None = None


class _GenerateRequest(_Generating, frozen=True, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    images: list[str] | None = None


class _EmbedRequest(_Request, frozen=True, kw_only=True):
    input: str | list[str] | None = None
    dimensions: Whole | None = None


class _EmbeddingsRequest(_Request, frozen=True, kw_only=True):
    prompt: str | None = None


class _NameRequest(msgspec.Struct, frozen=True):
    """`name` is what older clients send."""

    model: str | None = None
    name: str | None = None


# By endpoint, also for `/openapi.json`.
REQUESTS: Mapping[str, type[_Request]] = {
    "api/chat": _ChatRequest,
    "api/generate": _GenerateRequest,
    "api/embed": _EmbedRequest,
    "api/embeddings": _EmbeddingsRequest,
}


class OpenCall(msgspec.Struct, frozen=True):
    """A request of which only the model is known until it is read."""

    kind: Kind
    request: _Request

    @property
    def model(self) -> str:
        return self.request.model

    def read(self) -> OllamaCall:
        """The request as it is to be worked on.

        Raises:
            ApiError: 400, with what is wrong.
        """
        try:
            match self.request:
                case _ChatRequest() as chat:
                    return _chat(chat)
                case _GenerateRequest() as generate:
                    return _generate(generate)
                case _EmbedRequest() as embed:
                    return _embeddings(self.kind, embed, embed.input, embed.dimensions)
                case _EmbeddingsRequest() as old:
                    return _embeddings(self.kind, old, old.prompt, None)
            raise AssertionError(self.kind)
        except RecursionError:
            raise nested_too_deeply() from None


def open_call(kind: Kind, body: bytes) -> OpenCall:
    """Raises ApiError: 400, it is not such a request, or names no model."""
    return OpenCall(kind, _decode(body, REQUESTS[f"api/{kind.value}"]))


def read_call(kind: Kind, body: bytes) -> OllamaCall:
    """Raises ApiError: 400, with what is wrong."""
    return open_call(kind, body).read()


def read_model_name(body: bytes) -> str:
    """The model that an `/api/show` is about.

    Raises:
        ApiError: 400
    """
    request = _decode(body, _NameRequest)
    name = request.model or request.name
    if not name:
        raise _no_model()
    return name


_T = TypeVar("_T")


def _decode(body: bytes, shape: type[_T]) -> _T:
    refuse_bomb(body)
    try:
        request = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        # It names the place and the types, never a value.
        raise ApiError(400, f"the request is wrong: {error}", code="invalid_request") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(body, error) from None
    except RecursionError:
        raise nested_too_deeply() from None
    if isinstance(request, _Request) and not request.model:
        raise _no_model()
    return request


def _no_model() -> ApiError:
    message = "`model` is missing; GET /api/tags lists the names"
    return ApiError(400, message, code="missing_model", param="model")


# -- chat and generate --------------------------------------------------------------------------


def _chat(request: _ChatRequest) -> OllamaCall:
    fields: dict[str, Any] = {"messages": openai_messages(request.messages or ())}
    if request.tools:
        # Ollama takes tools without a type, engines do not.
        fields["tools"] = [{**t, "type": t.get("type") or "function"} for t in request.tools]
    return _generating(
        Kind.CHAT, request, "chat/completions", fields, only_loads=not request.messages
    )


def _generate(request: _GenerateRequest) -> OllamaCall:
    prompt, suffix = request.prompt or "", request.suffix or ""
    images = request.images or []
    if request.template:
        message = (
            "`template` is not supported: the engine uses the model's own; "
            "send a finished prompt with `raw`, or messages to /api/chat"
        )
        raise ApiError(400, message, param="template")
    only_loads = not (prompt or suffix or images)
    if suffix:
        if images or request.system:
            message = "`suffix` cannot be combined with `images` or `system`"
            raise ApiError(400, message, param="suffix")
        endpoint = "infill"
        fields: dict[str, Any] = {"input_prefix": prompt, "input_suffix": suffix}
    elif request.raw:
        if images or request.system:
            message = "`raw` sends the prompt as it is; it takes no `images` and no `system`"
            raise ApiError(400, message, param="raw")
        endpoint, fields = "completions", {"prompt": prompt}
    else:
        endpoint = "chat/completions"
        content: Any = prompt
        if images:
            text = [{"type": "text", "text": prompt}] if prompt else []
            content = [*image_parts(images, "images"), *text]
        system = [{"role": "system", "content": request.system}] if request.system else []
        fields = {"messages": [*system, {"role": "user", "content": content}]}
    return _generating(Kind.GENERATE, request, endpoint, fields, only_loads=only_loads)


def _generating(
    kind: Kind, request: _Generating, endpoint: str, fields: dict[str, Any], *, only_loads: bool
) -> OllamaCall:
    stream = request.stream is not False  # Ollama streams unless told otherwise
    body = {
        **fields,
        **sampling_fields(request.options),
        **format_fields(request.format, endpoint),
        **_logprob_fields(request, endpoint),
    }
    thinking = thinking_fields(request.think)
    if endpoint == "chat/completions":
        body |= thinking
    if stream:
        body["stream"] = True
        if endpoint != "infill":  # which says it without being asked
            body["stream_options"] = {"include_usage": True}
    if endpoint == "infill" and "max_tokens" in body:
        body["n_predict"] = body.pop("max_tokens")
    return OllamaCall(
        kind=kind,
        model=request.model,
        endpoint=endpoint,
        fields={} if only_loads else body,
        only_loads=only_loads,
        stream=stream,
        num_ctx=wished_context(request.options),
        keep_alive_s=keep_alive_s(request.keep_alive),
    )


def _logprob_fields(request: _Generating, endpoint: str) -> dict[str, Any]:
    most = int(request.top_logprobs or 0)
    if not 0 <= most <= MOST_TOP_LOGPROBS:
        message = f"`top_logprobs` must be between 0 and {MOST_TOP_LOGPROBS}"
        raise ApiError(400, message, param="top_logprobs")
    if not request.logprobs:
        return {}
    if endpoint == "chat/completions":
        return {"logprobs": True, "top_logprobs": most}
    return {"n_probs" if endpoint == "infill" else "logprobs": max(most, 1)}


# -- embeddings ---------------------------------------------------------------------------------


def _embeddings(
    kind: Kind, request: _Request, text: str | list[str] | None, dimensions: Whole | None
) -> OllamaCall:
    """Nothing is truncated in silence: `truncate` is not passed on, a text too long is an error."""
    if dimensions is not None and dimensions < 1:
        raise ApiError(400, "`dimensions` must be greater than 0", param="dimensions")
    return OllamaCall(
        kind=kind,
        model=request.model,
        endpoint="embeddings",
        fields={"input": text} if text else {},
        only_loads=not text,
        num_ctx=wished_context(request.options),
        keep_alive_s=keep_alive_s(request.keep_alive),
        dimensions=None if dimensions is None else min(int(dimensions), DIMENSIONS_MAX),
    )
