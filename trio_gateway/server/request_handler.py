"""RequestHandler: one method per endpoint family; the way of a request through the gateway."""

from __future__ import annotations

import logging
import string
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import msgspec
import trio
from quart import Response, request
from werkzeug.datastructures import Headers

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine import overview
from trio_gateway.engine.engine_manager import EngineManager
from trio_gateway.engine.events import How
from trio_gateway.engine.http_exchange import (
    ENGINE_LOST,
    Exchange,
    ExchangeAborted,
    Header,
)
from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.models.model_selector import (
    ContextLengthExceeded,
    ModelNotFound,
    ModelSelector,
    Selection,
)
from trio_gateway.models.token_count import RequestFields
from trio_gateway.server import sse
from trio_gateway.server.asgi import RequestState, state_of
from trio_gateway.server.caller import Caller, caller_of
from trio_gateway.server.dump_writer import DumpRecord, DumpWriter
from trio_gateway.server.engine_stream import EngineStream, news_of
from trio_gateway.server.errors import ApiError, engine_failed, from_reject, shutting_down
from trio_gateway.server.waiting_stream import Answer, PendingAnswer, Wait, WaitingStream

log = logging.getLogger(__name__)

# An answer with a known length up to this is read whole before its first byte is sent, so that an
# engine that dies in it costs a retry and not the answer. Longer ones are passed through.
WHOLE_ANSWER_MAX_BYTES = 16 * 1024**2
_PASSED_TO_ENGINE = ("Content-Type", "Accept")


class RequestHandler:
    """Turns requests into leases, forwarded requests and answers."""

    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        dumps: DumpWriter | None,
        stream_keepalive_s: float,
    ) -> None:
        self._manager, self._selector, self._dumps = manager, selector, dumps
        self._stream_keepalive_s = stream_keepalive_s
        self._uploads: set[trio.CancelScope] = set()

    async def handle_chat_completion(self) -> Response:
        return await self._handle("chat/completions", "messages")

    async def handle_completion(self) -> Response:
        return await self._handle("completions", "prompt")

    async def handle_embeddings(self) -> Response:
        return await self._handle("embeddings", "input")

    async def handle_models_list(self) -> Response:
        return _json({"object": "list", "data": self._selector.list_models()})

    async def handle_model_info(self, model_id: str) -> Response:
        try:
            return _json(self._selector.get_model_info(model_id))
        except ModelNotFound as error:
            return self._error_response(404, str(error), code="model_not_found", param="model")

    async def handle_queue(self) -> Response:
        return _json({"tickets": overview.tickets(self._manager)})

    async def handle_engines(self) -> Response:
        return _json({"engines": overview.engines(self._manager)})

    def _error_response(
        self,
        status: int,
        message: str,
        error_type: str = "invalid_request_error",
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> Response:
        return self.respond_to_error(ApiError(status, message, error_type, code=code, param=param))

    @staticmethod
    def respond_to_error(error: ApiError) -> Response:
        headers = Headers([("Content-Type", "application/json"), *error.headers()])
        return Response(error.encode(), status=error.status, headers=headers)

    # -- the way of a request -----------------------------------------------------------------

    async def _handle(self, endpoint: str, content_field: str) -> Response:
        state = state_of(request)
        try:
            body = await self._read_body()
        except ApiError as error:
            return self.respond_to_error(error)
        record = self._begin_dump(state, endpoint, body)
        try:
            fields = _decode(body, content_field)
            caller = caller_of(request)
            model = self._selector.find_model(fields.model)
            if endpoint not in self._manager.endpoints_of(model):
                raise _not_supported(endpoint, model)
            selection = await self._selector.select_variant(model, endpoint, fields, body)
            headers = _headers_for_engine()
            work = _Work(state, caller, endpoint, headers, body, selection, record, Wait())
            if fields.stream is True and self._stream_keepalive_s > 0:
                return await self._stream(work)
            return _response(await self._answer(work))
        except ModelNotFound as error:
            refused = ApiError(404, str(error), code="model_not_found", param="model")
        except ContextLengthExceeded as error:
            refused = ApiError(400, str(error), code="context_length_exceeded", param=content_field)
        except ApiError as error:
            refused = error
        if record is not None:
            record.facts["status"] = str(refused.status)
            record.add(refused.encode())
        return self.respond_to_error(refused)

    async def _read_body(self) -> bytes:
        """Raises ApiError when the gateway stops before all of it came."""
        with trio.CancelScope() as upload:
            self._uploads.add(upload)
            try:
                return cast(bytes, await request.get_data(cache=False))
            finally:
                self._uploads.discard(upload)
        raise shutting_down()

    def refuse_uploads(self) -> None:
        """The gateway stops: a request that is still being sent gets its 503 now."""
        for upload in [*self._uploads]:
            upload.cancel(reason="the gateway is stopping")

    async def _stream(self, work: _Work) -> Response:
        """The answer; if it takes long, a stream that says what it waits for."""
        pending = PendingAnswer(partial(self._answer, work))
        work.state.nursery.start_soon(pending.run)
        answer = await pending.wait(self._stream_keepalive_s)
        if answer is not None:
            return _response(answer)
        headers = [
            (b"Content-Type", sse.CONTENT_TYPE.encode()),
            (b"Cache-Control", b"no-cache"),
            *_selection_headers(work.selection),
        ]
        add = None
        if work.record is not None:
            work.record.facts["status"] = "200, before the answer was there"
            work.record.facts["content type"] = sse.CONTENT_TYPE
            add = work.record.add
        stream = WaitingStream(pending, work.wait, self._stream_keepalive_s, add)
        return _response(Answer(200, headers, stream))

    async def _answer(self, work: _Work) -> Answer:
        """An engine's answer. A request that lost its engine before anything was sent gets one
        more try: on a fresh one, if the first one is gone."""
        try:
            return await self._try(work)
        except _EngineLost as lost:
            log.warning("request %s: %s; trying once more", work.state.id, lost)
        try:
            return await self._try(work)
        except _EngineLost as lost:
            raise engine_failed(work.selection.model.name, str(lost)) from None

    async def _try(self, work: _Work) -> Answer:
        model, need = work.selection.model, work.selection.need
        client, priority = work.caller
        wanted = self._manager.lease(model, need, client=client, priority=priority)
        work.wait.request = wanted
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(wanted)
            except LeaseRefused as refused:
                raise from_reject(model.name, refused.reject) from None
            work.wait.engine_asked_at = trio.current_time()
            engine, target = lease.client, f"/v1/{work.endpoint}"
            body = engine.transform_request(work.endpoint, work.body)
            try:
                exchange = await stack.enter_async_context(
                    engine.forward_request("POST", target, work.headers, body)
                )
                whole = _content_length(exchange) is not None
                first = await (_read_whole(exchange) if whole else exchange.receive())
            except ExchangeAborted:
                raise shutting_down() from None
            except ENGINE_LOST as error:
                raise _EngineLost(await news_of(lease, error)) from None
            headers = engine.transform_response(exchange.headers)
            headers += _selection_headers(work.selection) + _decision_headers(lease)
            if work.record is not None:
                _note_answer(work.record, exchange, headers, first)
            if whole:
                return Answer(exchange.status, headers, first)
            # The rest belongs to the request: it ends with the answer, or with the client.
            rest = stack.pop_all()
            work.state.stack.push_async_callback(rest.aclose)
            add = work.record.add if work.record is not None else None
            stream = EngineStream(first, exchange, lease, rest, add)
            return Answer(exchange.status, headers, stream)

    def _begin_dump(self, state: RequestState, endpoint: str, body: bytes) -> DumpRecord | None:
        if self._dumps is None:
            return None
        record = self._dumps.begin(state.id, endpoint, body)
        state.stack.callback(record.finish)
        return record


class _Work(NamedTuple):
    """A request on its way to an engine."""

    state: RequestState
    caller: Caller
    endpoint: str
    headers: list[Header]
    body: bytes
    selection: Selection
    record: DumpRecord | None
    wait: Wait


class _EngineLost(Exception):
    """The engine went away before anything of its answer was sent."""


def _decode(body: bytes, content_field: str) -> RequestFields:
    """The fields that the gateway needs.

    Raises:
        ApiError: 400, with what is wrong.
    """
    try:
        fields = msgspec.json.decode(body, type=RequestFields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the body is not a JSON object: {error}" if body else "the body is empty"
        raise ApiError(400, message, code="invalid_json") from None
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


def _not_supported(endpoint: str, model: ModelConfig) -> ApiError:
    message = f"the engine of {model.name} ({model.engine.value}) does not serve {endpoint}"
    return ApiError(400, message, code="endpoint_not_supported")


def _headers_for_engine() -> list[Header]:
    """Only what an engine needs: cookies and keys are not for it."""
    return [
        (name.encode(), value.encode("latin-1"))
        for name in _PASSED_TO_ENGINE
        if (value := request.headers.get(name)) is not None
    ]


def _selection_headers(selection: Selection) -> list[Header]:
    return [
        (b"X-Gateway-Model", _header_text(selection.model.name)),
        (b"X-Gateway-Need", b"%d" % selection.need),
    ]


def _decision_headers(lease: Lease) -> list[Header]:
    decision = lease.grant.how.value
    if lease.grant.how is How.SWAPPED:
        decision += "; evicted=" + ",".join(map(str, lease.grant.evicted))
    return [
        (b"X-Gateway-Variant", _header_text(lease.engine.variant.name)),
        (b"X-Gateway-Decision", _header_text(decision)),
        (b"X-Gateway-Queue-Ms", b"%d" % round(lease.queue_s * 1000)),
        (b"X-Gateway-Load-Ms", b"%d" % round(lease.load_s * 1000)),
    ]


def _header_text(name: str) -> bytes:
    """A header is ASCII: other letters are percent-encoded."""
    return (
        quote(name, safe=string.punctuation + " ").encode() if not name.isascii() else name.encode()
    )


def _note_answer(
    record: DumpRecord, exchange: Exchange, headers: list[Header], first: bytes
) -> None:
    record.facts["status"] = str(exchange.status)
    for name, value in headers:
        if name == b"content-type":
            record.facts["content type"] = value.decode("latin-1")
        elif name.startswith(b"X-Gateway"):
            record.facts[name.decode("latin-1")] = value.decode("latin-1")
    record.add(first)


def _content_length(exchange: Exchange) -> int | None:
    """The answer's length if it is known and small enough to be read whole."""
    for name, value in exchange.headers:
        if name == b"content-length" and value.isdigit() and int(value) <= WHOLE_ANSWER_MAX_BYTES:
            return int(value)
    return None


async def _read_whole(exchange: Exchange) -> bytes:
    pieces = []
    while piece := await exchange.receive():
        pieces.append(piece)
    return b"".join(pieces)


def _response(answer: Answer) -> Response:
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    response = Response(answer.body, status=answer.status, headers=Headers(text))
    response.timeout = None  # an answer may take hours
    return response


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
