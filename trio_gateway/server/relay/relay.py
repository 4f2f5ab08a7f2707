"""Relay: the way of a request through the gateway: model, variant, lease, engine, answer.

`prepare` makes an Ask of a request; `respond` gives its answer, and `answer` the same without the
comments that a long wait would put in front of a stream.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import trio

from trio_gateway import rawjson
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.clients.usage import Usage, usage_of_answer
from trio_gateway.engine.errors import EngineLost, ExchangeAborted
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header
from trio_gateway.engine.kv.slots import Prompt
from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.model_selector import (
    ContextLengthExceeded,
    ModelNotFound,
    ModelSelector,
    Selection,
    Wanted,
)
from trio_gateway.models.need.counted_form import CountedForm
from trio_gateway.rawjson import Members
from trio_gateway.server.access.caller import Caller
from trio_gateway.server.access.permissions import EVERYTHING, Permissions, model_not_allowed
from trio_gateway.server.api import sse
from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.endpoints import Endpoint, Family, Need
from trio_gateway.server.api.errors import (
    ApiError,
    aborted,
    engine_error,
    engine_failed,
    from_reject,
    model_not_found,
)
from trio_gateway.server.api.request_body import (
    ParsedRequest,
    nested_too_deeply,
    parse_request,
    too_long,
    with_answer_limit,
)
from trio_gateway.server.dumps import DumpRecord
from trio_gateway.server.forms.form_upload import FormUpload
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.relay.engine_answer import (
    Outgrown,
    outgrown_of,
    read_beginning,
)
from trio_gateway.server.relay.engine_stream import EngineStream, news_of
from trio_gateway.server.relay.headers import decision_headers, selection_headers
from trio_gateway.server.relay.waiting_stream import Answer, PendingAnswer, Wait, WaitingStream

log = logging.getLogger(__name__)

_EMBEDDING = frozenset({Need.INPUT, Need.CONTENT, Need.RERANK})


class Sender(NamedTuple):
    """Who sent a request, and what of its HTTP goes to an engine."""

    state: RequestState
    caller: Caller
    headers: list[Header]
    permissions: Permissions


class Ask(NamedTuple):
    """A request on its way to an engine.

    `asked`: the model's name as the client wrote it; empty: the answer's name is left alone.
    `target`: path and query at the engine. `prompt`: what its conversation is told by, if any.
    `form`: the body instead of `body`, of a request that is streamed through.
    """

    sender: Sender
    endpoint: Endpoint
    asked: str
    method: str
    target: str
    body: bytes
    wants_stream: bool
    selection: Selection
    prompt: Prompt | None
    wait: Wait
    form: FormUpload | None = None

    @property
    def state(self) -> RequestState:
        return self.sender.state

    @property
    def model(self) -> ModelConfig:
        return self.selection.model


class Relay:
    """Turns requests into leases, forwarded requests and answers."""

    def __init__(
        self, manager: EngineManager, selector: ModelSelector, stream_keepalive_s: float
    ) -> None:
        self._manager, self._selector = manager, selector
        self._stream_keepalive_s = stream_keepalive_s

    # -- what is asked ------------------------------------------------------------------------

    async def prepare(
        self, sender: Sender, endpoint: Endpoint, request: ParsedRequest, *, wish: int = 0
    ) -> Ask:
        """An Ask of a JSON request.

        Args:
            wish: tokens that the context should have, if the model has that much.

        Raises:
            ApiError: with what is wrong with it.
        """
        wanted = self.find(request.model, sender.permissions)
        model = wanted.model
        asked = model.name if request.model is None else request.model
        self.check_served(endpoint, model)
        if model.rewrite is not None:
            request = request.rewritten(model.rewrite)
        largest = max(self._manager.overview.contexts_of(model.name))
        at_least = max(wanted.at_least, min(wish, largest))
        prompt = None
        try:
            if endpoint.need is Need.UNCOUNTED:
                selection = self._selector.select_any(model, endpoint.name, at_least)
            else:
                form = request.counted(endpoint)
                selection = await self._selector.select_variant(model, form, at_least)
                if endpoint.need not in _EMBEDDING:
                    prompt = Prompt(form.kind, form.body)
        except ContextLengthExceeded as error:
            raise too_long(endpoint, str(error)) from None
        except RecursionError:
            raise nested_too_deeply() from None
        target = endpoint.engine_path or endpoint.paths[0]
        ask = Ask(
            sender, endpoint, asked, "POST", target, request.data, request.wants_stream,
            selection, prompt, Wait(),
        )  # fmt: skip
        return _lowered(ask, request.members)

    async def prepare_form(self, sender: Sender, endpoint: Endpoint, form: FormUpload) -> Ask:
        """An Ask of a multipart form, as soon as its model is known.

        Raises:
            ApiError: as `prepare`, and what is wrong with the upload.
        """
        name = await form.read_model()
        ask = self.prepare_any(
            sender, endpoint, name, endpoint.engine_path or endpoint.paths[0], method="POST"
        )
        return ask._replace(asked=name, form=form)

    def prepare_any(
        self,
        sender: Sender,
        endpoint: Endpoint,
        model: str | None,
        target: str,
        *,
        method: str = "GET",
        body: bytes = b"",
    ) -> Ask:
        """An Ask that any engine of the model can answer; its answer's name is left alone.

        Raises:
            ApiError: as `prepare`.
        """
        wanted = self.find(model, sender.permissions)
        self.check_served(endpoint, wanted.model)
        selection = self._selector.select_any(wanted.model, endpoint.name, wanted.at_least)
        return Ask(sender, endpoint, "", method, target, body, False, selection, None, Wait())

    @asynccontextmanager
    async def lease_any(self, sender: Sender, model: str, *, wish: int = 0) -> AsyncIterator[Lease]:
        """A lease of an engine of the model, of whatever variant its name asks for. `wish`: as for
        `prepare`.

        Raises:
            ApiError: no engine, or no such model.
        """
        wanted = self.find(model, sender.permissions)
        largest = max(self._manager.overview.contexts_of(wanted.model.name))
        need = max(wanted.at_least, min(wish, largest), 1)
        client, priority = sender.caller
        request = self._manager.lease(wanted.model, need, client=client, priority=priority)
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(request)
            except LeaseRefused as refused:
                raise from_reject(wanted.model.name, refused.reject) from None
            yield lease

    def counted(
        self, data: bytes, endpoint: Endpoint, permissions: Permissions = EVERYTHING
    ) -> tuple[Wanted, CountedForm]:
        """The model of a request, and what it is counted as, for a dry run.

        Raises:
            ApiError: as `prepare`.
        """
        request = parse_request(data, endpoint)
        wanted = self.find(request.model, permissions)
        self.check_served(endpoint, wanted.model)
        if wanted.model.rewrite is not None:
            request = request.rewritten(wanted.model.rewrite)
        return wanted, request.counted(endpoint)

    def find(self, name: str | None, permissions: Permissions = EVERYTHING) -> Wanted:
        """Raises ApiError: 404 without such a model, 403 if its key may not use it."""
        try:
            wanted = self._selector.find_wanted(name)
        except ModelNotFound as error:
            if permissions.models is None:
                raise model_not_found(str(error)) from None
            message = "there is no such model; GET /v1/models lists those of your API key"
            raise model_not_found(message) from None
        except ContextLengthExceeded as error:
            message = str(error) if permissions.models is None else "the model has no such context"
            raise ApiError(400, message, code="context_not_found", param="model") from None
        if not permissions.allows(wanted.model.name):
            raise model_not_allowed(permissions, wanted.model.name)
        return wanted

    def check_served(self, endpoint: Endpoint, model: ModelConfig) -> None:
        """Raises ApiError: 400, the model's engines have no such endpoint."""
        served = self._manager.overview.endpoints_of(model)
        if endpoint.name not in served and endpoint.family is not Family.GATEWAY:
            message = (
                f"the engine of {model.name} ({model.engine.value}) does not serve "
                f"{endpoint.name}; it serves: {', '.join(sorted(served))}"
            )
            raise ApiError(400, message, code="endpoint_not_supported")

    # -- the answer ---------------------------------------------------------------------------

    async def respond(self, ask: Ask) -> Answer:
        """The answer; if it is a stream and takes long, one that says what it waits for."""
        if not (ask.wants_stream and ask.endpoint.streams and self._stream_keepalive_s > 0):
            return await self.answer(ask)
        pending = PendingAnswer(partial(self.answer, ask))
        ask.state.nursery.start_soon(pending.run)
        answer = await pending.wait(self._stream_keepalive_s)
        if answer is not None:
            return answer
        headers = [
            (b"Content-Type", sse.CONTENT_TYPE.encode()),
            (b"Cache-Control", b"no-cache"),
            *selection_headers(ask.selection),
        ]
        add = None
        if (record := ask.state.record) is not None:
            record.facts["status"] = "200, before the answer was there"
            record.facts["content type"] = sse.CONTENT_TYPE
            add = record.add
        family = ask.endpoint.family
        stream = WaitingStream(pending, ask.wait, self._stream_keepalive_s, add, family)
        return Answer(200, headers, stream)

    async def answer(self, ask: Ask) -> Answer:
        """An engine's answer. A request that lost its engine before anything was sent gets one
        more try: on a fresh one, if the first one is gone. One that its engine found too long for
        its context goes up to a larger variant, once.

        Raises:
            ApiError: there is no answer of an engine.
        """
        lost_before = grown = False
        while True:
            try:
                return await self._try(ask)
            except EngineLost as lost:
                if lost_before or (ask.form is not None and not ask.form.can_repeat):
                    raise engine_failed(ask.model.name, str(lost)) from None
                log.warning("request %s: %s; trying once more", ask.state.id, lost)
                lost_before = True
            except Outgrown as outgrown:
                if grown:
                    raise too_long(ask.endpoint, outgrown.message) from None
                ask, grown = self._move_up(ask, outgrown), True

    def _move_up(self, ask: Ask, outgrown: Outgrown) -> Ask:
        try:
            selection = self._selector.select_larger(
                ask.selection, outgrown.prompt_tokens, outgrown.context
            )
        except ContextLengthExceeded as error:
            raise too_long(ask.endpoint, str(error)) from None
        log.info("request %s: %s, moving up", ask.state.id, selection.reason)
        return _lowered(ask._replace(selection=selection), rawjson.members(ask.body))

    async def _try(self, ask: Ask) -> Answer:
        model, selection = ask.model, ask.selection
        client, priority = ask.sender.caller
        wanted = self._manager.lease(
            model, selection.need, start_need=selection.start_need,
            client=client, priority=priority, prompt=ask.prompt,
        )  # fmt: skip
        ask.wait.request = wanted
        async with AsyncExitStack() as stack:
            try:
                async with nullcontext() if ask.form is None else ask.form.reading_on():
                    lease = await stack.enter_async_context(wanted)
            except LeaseRefused as refused:
                raise from_reject(model.name, refused.reject) from None
            ask.wait.engine_asked_at = trio.current_time()
            engine = lease.client
            body: bytes | BodySource
            if ask.form is not None:
                body = ask.form.source(engine.served_name)
            else:
                body = engine.transform_request(ask.endpoint.name, ask.body)
            await lease.switch_conversation()
            try:
                exchange = await stack.enter_async_context(
                    engine.forward_request(ask.method, ask.target, ask.sender.headers, body)
                )
                first, whole = await read_beginning(exchange)
            except ExchangeAborted as error:
                raise aborted(error) from None
            except EngineLost as error:
                raise EngineLost(await news_of(lease, error)) from None
            if whole and exchange.status == 400 and ask.endpoint.need is not Need.UNCOUNTED:
                _raise_if_outgrown(first, lease)
            headers = engine.transform_response(exchange.headers)
            headers += selection_headers(selection) + decision_headers(lease)
            if ask.state.record is not None:
                _note_answer(ask.state.record, exchange, headers, first)
            note = partial(self._note_usage, ask, lease)
            name = AnswerName(ask.asked)
            if whole:
                if exchange.status == 200 and ask.prompt is not None:
                    note(usage_of_answer(first))
                return _whole_answer(ask, exchange.status, headers, first, name)
            # The rest belongs to the request: it ends with the answer, or with the client.
            rest = stack.pop_all()
            ask.state.stack.push_async_callback(rest.aclose)
            add = ask.state.record.add if ask.state.record is not None else None
            family = ask.endpoint.family
            stream = EngineStream(first, exchange, lease, rest, add, note, name, family)
            if stream.has_events:  # another name in it is of another length
                headers = [(n, v) for n, v in headers if n != b"content-length"]
            return Answer(exchange.status, headers, stream)

    def _note_usage(self, ask: Ask, lease: Lease, usage: Usage | None) -> None:
        """What an answer says of its tokens teaches the counts, and the KV carry-over."""
        if usage is not None and ask.prompt is not None:
            lease.note_answer(usage)
            self._selector.note_answer(ask.selection, usage)


def _raise_if_outgrown(answer: bytes, lease: Lease) -> None:
    if (outgrown := outgrown_of(answer, lease)) is not None:
        raise outgrown


def _whole_answer(
    ask: Ask, status: int, headers: list[Header], body: bytes, name: AnswerName
) -> Answer:
    changed = body
    if status >= 400:
        changed = engine_error(status, body, ask.endpoint.family)
    elif dict(headers).get(b"content-type", b"").startswith(b"application/json"):
        changed = name.in_whole(body)
    if changed is not body:
        headers = [(n, v) for n, v in headers if n != b"content-length"]
    return Answer(status, headers, changed)


def _lowered(ask: Ask, members: Members) -> Ask:
    """With the answer's maximum lowered, where the selection says so."""
    selection = ask.selection
    if selection.clamped is None or selection.answer is None:
        return ask
    log.info("request %s: %s", ask.state.id, selection.reason)
    return ask._replace(body=with_answer_limit(members, selection.answer))


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
