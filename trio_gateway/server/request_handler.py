"""RequestHandler: one method per endpoint family; the way of a request through the gateway."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, cast

import msgspec
import trio
from quart import Response, request
from werkzeug.datastructures import Headers

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine import overview
from trio_gateway.engine.engine_kv import Prompt
from trio_gateway.engine.engine_manager import EngineManager
from trio_gateway.engine.http_exchange import (
    ENGINE_LOST,
    Exchange,
    ExchangeAborted,
    Header,
)
from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.engine.usage import Usage, usage_of_answer
from trio_gateway.models.explanation import explain
from trio_gateway.models.model_selector import (
    ContextLengthExceeded,
    ModelNotFound,
    ModelSelector,
    Selection,
)
from trio_gateway.models.token_count import RequestFields
from trio_gateway.models.token_counter import TokenCounter
from trio_gateway.server import sse
from trio_gateway.server.asgi import RequestState, state_of
from trio_gateway.server.caller import Caller, caller_of
from trio_gateway.server.dump_writer import DumpRecord, DumpWriter
from trio_gateway.server.engine_answer import (
    EngineLost,
    Outgrown,
    content_length,
    outgrown_of,
    read_whole,
)
from trio_gateway.server.engine_stream import EngineStream, news_of
from trio_gateway.server.errors import ApiError, engine_failed, from_reject, shutting_down
from trio_gateway.server.gateway_headers import decision_headers, selection_headers
from trio_gateway.server.request_body import (
    CONTENT_FIELDS,
    decode_fields,
    endpoint_of,
    nested_too_deeply,
    too_long,
    with_answer_limit,
)
from trio_gateway.server.waiting_stream import Answer, PendingAnswer, Wait, WaitingStream

log = logging.getLogger(__name__)

_PASSED_TO_ENGINE = ("Content-Type", "Accept")


class RequestHandler:
    """Turns requests into leases, forwarded requests and answers."""

    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        dumps: DumpWriter | None,
        stream_keepalive_s: float,
    ) -> None:
        self._manager, self._selector, self._counter = manager, selector, counter
        self._dumps = dumps
        self._stream_keepalive_s = stream_keepalive_s
        self._uploads: set[trio.CancelScope] = set()

    async def handle_chat_completion(self) -> Response:
        return await self._handle("chat/completions")

    async def handle_completion(self) -> Response:
        return await self._handle("completions")

    async def handle_embeddings(self) -> Response:
        return await self._handle("embeddings")

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
        kv = self._manager.kv.totals()
        return _json({"engines": overview.engines(self._manager), "kv_carryover": kv})

    async def handle_model_facts(self, model_id: str) -> Response:
        """A model as in the list, and what its answers taught about its counts."""
        try:
            model = self._selector.find_model(model_id)
        except ModelNotFound as error:
            return self._error_response(404, str(error), code="model_not_found", param="model")
        calibration = self._counter.calibration(model.name)
        facts = {
            **self._selector.get_model_info(model.name),
            "template_overhead": calibration.overhead,
            "template_overhead_learned": calibration.is_learned,
            "average_turn_tokens": round(calibration.average_turn_tokens),
            "count_errors": calibration.errors(),
        }
        return _json(facts)

    async def handle_explain(self) -> Response:
        """What would become of the request in the body. No engine is started or asked to work."""
        try:
            body = await self._read_body()
            endpoint = endpoint_of(body)
            fields = decode_fields(body, CONTENT_FIELDS[endpoint])
            model = self._selector.find_model(fields.model)
            if endpoint not in self._manager.endpoints_of(model):
                raise _not_supported(endpoint, model)
            return _json(
                await explain(
                    self._selector, self._counter, self._manager, model, endpoint, fields, body
                )
            )
        except ModelNotFound as error:
            return self._error_response(404, str(error), code="model_not_found", param="model")
        except RecursionError:
            return self.respond_to_error(nested_too_deeply())
        except ApiError as error:
            return self.respond_to_error(error)

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

    async def _handle(self, endpoint: str) -> Response:
        state = state_of(request)
        try:
            body = await self._read_body()
        except ApiError as error:
            return self.respond_to_error(error)
        record = self._begin_dump(state, endpoint, body)
        try:
            fields = decode_fields(body, CONTENT_FIELDS[endpoint])
            caller = caller_of(request)
            model = self._selector.find_model(fields.model)
            if endpoint not in self._manager.endpoints_of(model):
                raise _not_supported(endpoint, model)
            selection = await self._select(model, endpoint, fields, body)
            headers = _headers_for_engine()
            work = _Work(state, caller, endpoint, headers, body, selection, record, Wait())
            work = _lowered(work)
            if fields.stream is True and self._stream_keepalive_s > 0:
                return await self._stream(work)
            return _response(await self._answer(work))
        except ModelNotFound as error:
            refused = ApiError(404, str(error), code="model_not_found", param="model")
        except ContextLengthExceeded as error:
            refused = too_long(endpoint, str(error))
        except ApiError as error:
            refused = error
        if record is not None:
            record.facts["status"] = str(refused.status)
            record.add(refused.encode())
        return self.respond_to_error(refused)

    async def _select(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> Selection:
        try:
            return await self._selector.select_variant(model, endpoint, fields, body)
        except RecursionError:
            raise nested_too_deeply() from None

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
            *selection_headers(work.selection),
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
        more try: on a fresh one, if the first one is gone. One that its engine found too long for
        its context goes up to a larger variant, once."""
        lost_before = grown = False
        while True:
            try:
                return await self._try(work)
            except EngineLost as lost:
                if lost_before:
                    raise engine_failed(work.selection.model.name, str(lost)) from None
                log.warning("request %s: %s; trying once more", work.state.id, lost)
                lost_before = True
            except Outgrown as outgrown:
                if grown:
                    raise too_long(work.endpoint, outgrown.message) from None
                work, grown = self._move_up(work, outgrown), True

    def _move_up(self, work: _Work, outgrown: Outgrown) -> _Work:
        try:
            selection = self._selector.select_larger(
                work.selection, outgrown.prompt_tokens, outgrown.context
            )
        except ContextLengthExceeded as error:
            raise too_long(work.endpoint, str(error)) from None
        log.info("request %s: %s, moving up", work.state.id, selection.reason)
        return _lowered(work._replace(selection=selection))

    async def _try(self, work: _Work) -> Answer:
        model, need = work.selection.model, work.selection.need
        client, priority = work.caller
        prompt = None if work.endpoint == "embeddings" else Prompt(work.endpoint, work.body)
        wanted = self._manager.lease(
            model, need, start_need=work.selection.start_need,
            client=client, priority=priority, prompt=prompt,
        )  # fmt: skip
        work.wait.request = wanted
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(wanted)
            except LeaseRefused as refused:
                raise from_reject(model.name, refused.reject) from None
            work.wait.engine_asked_at = trio.current_time()
            engine, target = lease.client, f"/v1/{work.endpoint}"
            body = engine.transform_request(work.endpoint, work.body)
            await lease.switch_conversation()
            try:
                exchange = await stack.enter_async_context(
                    engine.forward_request("POST", target, work.headers, body)
                )
                whole = content_length(exchange) is not None
                first = await (read_whole(exchange) if whole else exchange.receive())
            except ExchangeAborted:
                raise shutting_down() from None
            except ENGINE_LOST as error:
                raise EngineLost(await news_of(lease, error)) from None
            if whole and exchange.status == 400 and (outgrown := outgrown_of(first, lease)):
                raise outgrown
            headers = engine.transform_response(exchange.headers)
            headers += selection_headers(work.selection) + decision_headers(lease)
            if work.record is not None:
                _note_answer(work.record, exchange, headers, first)
            note = partial(self._note_usage, work, lease)
            if whole:
                if exchange.status == 200 and work.endpoint != "embeddings":
                    note(usage_of_answer(first))
                return Answer(exchange.status, headers, first)
            # The rest belongs to the request: it ends with the answer, or with the client.
            rest = stack.pop_all()
            work.state.stack.push_async_callback(rest.aclose)
            add = work.record.add if work.record is not None else None
            stream = EngineStream(first, exchange, lease, rest, add, note)
            return Answer(exchange.status, headers, stream)

    def _note_usage(self, work: _Work, lease: Lease, usage: Usage | None) -> None:
        """What an answer says of its tokens teaches the counts, and the KV carry-over."""
        if usage is not None:
            lease.note_answer(usage)
            self._selector.note_answer(work.selection, usage)

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


def _lowered(work: _Work) -> _Work:
    """With the answer's maximum lowered, where the selection says so."""
    selection = work.selection
    if selection.clamped is None or selection.answer is None:
        return work
    log.info("request %s: %s", work.state.id, selection.reason)
    return work._replace(body=with_answer_limit(work.body, selection.answer))


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


def _response(answer: Answer) -> Response:
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    response = Response(answer.body, status=answer.status, headers=Headers(text))
    response.timeout = None  # an answer may take hours
    return response


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
