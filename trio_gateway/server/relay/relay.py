"""Relay: an Ask is sent to an engine, the answer's beginning is read, and the answer presented.

    lease an engine → send → read → present

Whoever looks on (a dump, what an answer's usage teaches) is an AnswerObserver of the request.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.engine.clients.usage import Usage, usage_of_answer, usage_of_ends, usage_so_far
from trio_gateway.engine.errors import EngineLost, ExchangeAborted, KeyRefused
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import FIRST_ERROR_STATUS, Exchange, Header
from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.held import Held
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.api import sse
from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.errors import aborted, engine_failed, from_reject, key_refused
from trio_gateway.server.api.hidden_cache import HidingAnswerName
from trio_gateway.server.http.types import Send
from trio_gateway.server.relay.answer import Answer, in_shape, without_length
from trio_gateway.server.relay.ask import Ask, Sender
from trio_gateway.server.relay.early_answer import EarlyAnswers, LateAnswer, Opening
from trio_gateway.server.relay.engine_answer import (
    Beginning,
    Outgrown,
    raise_if_refused,
    read_beginning,
)
from trio_gateway.server.relay.engine_stream import EngineStream, news_of
from trio_gateway.server.relay.headers import choice_header, decision_headers, selection_headers
from trio_gateway.server.relay.leasing import Shrunk, chosen_anew, lease_for
from trio_gateway.server.relay.long_answer import LongAnswer
from trio_gateway.server.relay.passage import headers_of
from trio_gateway.server.relay.placing import is_read, placed
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.usage_observer import UsageObserver

log = logging.getLogger(__name__)

_JSON = b"application/json"


class Relay:
    """Turns Asks into leases, forwarded requests and answers.

    Args:
        early_answers: streams that wait; they are told what for.
        reasons: streams say as thoughts what they wait for, unless their model wants it otherwise.
        hides_cached_tokens: no answer says how much of its prompt was in an engine's cache.
    """

    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        preparer: Preparer,
        early_answers: EarlyAnswers,
        stream_keepalive_style: KeepaliveStyle = KeepaliveStyle.COMMENT,
        *,
        reasons: bool = False,
        hides_cached_tokens: bool = False,
    ) -> None:
        self._naming = HidingAnswerName if hides_cached_tokens else AnswerName
        self._hides = hides_cached_tokens
        self._manager, self._selector, self._preparer = manager, selector, preparer
        self._early_answers = early_answers
        self._keepalive_style, self._reasons = stream_keepalive_style, reasons

    @asynccontextmanager
    async def lease_any(
        self, sender: Sender, model: str, endpoint: Endpoint | None = None, *, wish: int = 0
    ) -> AsyncIterator[Lease]:
        """A lease of an engine of the model, of whatever variant its name asks for. `endpoint`:
        what it is for. `wish`: as for `Preparer.prepare`.

        Raises:
            ApiError: no engine, or no such model.
        """
        wanted = self._preparer.find(model, sender.permissions, endpoint)
        sender.state.record.chosen = wanted.chosen
        need = max(self._preparer.context_for(wanted, wish), 1)
        caller = sender.caller
        request = self._manager.lease(
            wanted.model, need, client=caller.client, priority=caller.priority
        )
        sender.state.record.waits(request)
        async with Held() as stack:
            try:
                lease = await stack.enter_async_context(request)
            except LeaseRefused as refused:
                raise from_reject(wanted.model.name, refused.reject) from None
            sender.state.record.has(lease)
            yield lease

    def respond(self, ask: Ask) -> Awaitable[Answer]:
        """The answer; of a stream that takes long, what is left of it once there is one."""
        ask.note()
        send = ask.sender.send if ask.wants_stream and ask.endpoint.streams else None
        if send is None or not self._early_answers.takes(
            opening := ask.opening_as(self._keepalive_style, reasons=self._reasons)
        ):
            return self._answer(ask, ask.sender.state.family)
        return self._respond_early(ask, opening, send)

    async def _respond_early(self, ask: Ask, opening: Opening, send: Send) -> Answer:
        ask.state.last_words = partial(ask.last_words, opening)
        observers = ask.state.observers
        early = self._early_answers.begin(ask.wait, opening, ask.selection, send, observers)
        result: Answer | Exception
        try:
            result = await self._answer(ask)
        except Exception as error:
            if not await early.end():
                raise
            result = error
        except BaseException:
            await early.abandon()
            raise
        else:
            if not await early.end():
                return in_shape(ask.state.family, result)
        late = LateAnswer(result, ask.error_events, ask.state, events=opening.events)
        return Answer(200, [], late)

    async def _answer(self, ask: Ask, family: Family | None = None) -> Answer:
        """An engine's answer. A request that lost its engine before anything was sent gets one
        more try: on a fresh one, if the first one is gone. One that its engine found too long for
        its context goes up to a larger variant, once. `family`: whose shape an engine's error
        gets; None: its own.

        Raises:
            ApiError: no engine answered.
        """
        lost_before = grown = shrunk = False
        while True:
            try:
                answer = await self._try(ask)
            except EngineLost as lost:
                if lost_before or (ask.form is not None and not ask.form.can_repeat):
                    raise engine_failed(ask.model.name, str(lost), lost.output) from None
                log.warning("request %s: %s; trying once more", ask.state.id, lost)
                ask, lost_before = ask.recounted(), True
            except Shrunk as refused:
                if shrunk:
                    raise from_reject(ask.model.name, refused.reject) from None
                ask, shrunk = await chosen_anew(ask, refused), True
            except Outgrown as outgrown:
                ask = ask.recounted()
                if grown or (larger := self._preparer.for_larger(ask, outgrown)) is None:
                    excess = ask.selection.excess(
                        outgrown.context, outgrown.prompt_tokens, outgrown.why,
                        is_least=outgrown.is_least,
                    )  # fmt: skip
                    raise ask.too_long(excess) from None
                ask, grown = larger, True
            else:
                return answer if family is None else in_shape(family, answer)

    async def _try(self, ask: Ask) -> Answer:
        async with Held() as stack:
            ask, lease = await lease_for(ask, self._manager, stack)
            hold = ask.sender.state.hold
            long = LongAnswer.of(ask, lease, self._manager)
            try:
                if long is None:
                    exchange = await _send(ask, lease, stack)
                    beginning = await read_beginning(exchange, hold)
                else:
                    with long.scope:
                        exchange = await _send(long.ask, lease, stack)
                        beginning = await read_beginning(exchange, hold)
                        beginning = await long.collect(exchange, beginning, hold)
            except ExchangeAborted as error:
                raise aborted(error) from None
            except KeyRefused as error:
                raise key_refused(f"{ask.model.name}: {error}") from None
            except EngineLost as error:
                raise await news_of(lease, error) from None
            if long is not None and long.is_ended:
                return long.answer(self._naming)
            if exchange.status >= FIRST_ERROR_STATUS:
                raise_if_refused(ask, exchange, beginning, lease)
            if lease.kv_move.restored and exchange.status == 200 and not self._hides:
                await lease.find_spared(usage_so_far(beginning.piece))
            return self._present(ask, lease, exchange, beginning, stack, long)

    def _present(
        self,
        ask: Ask,
        lease: Lease,
        exchange: Exchange,
        beginning: Beginning,
        stack: Held,
        long: LongAnswer | None,
    ) -> Answer:
        """Whole, with nothing held any more; or as a stream, which holds what is on the stack."""
        sender, now = ask.sender, trio.current_time()
        state = sender.state
        state.record.first_byte_at = now
        status, client = exchange.status, lease.engine.client
        headers = client.transform_response(exchange.headers)
        headers += selection_headers(ask.selection)
        headers += decision_headers(lease, sender.permissions.allows)
        if ask.chosen is not None:
            headers.append(choice_header(ask.chosen))
        if ask.cache_break is not None:
            headers.append(
                (b"x-gateway-cache-break", ask.cache_break.where.encode("ascii", "replace"))
            )
        observers = state.observers
        for observer in observers:
            observer.begins(status, headers)
            observer.continues(beginning.piece)
        progress = lease.progress
        if progress is None and status == 200 and not sse.has_events(exchange.headers):
            state.record.usage = usage_of_ends(beginning.piece)
        if beginning.is_whole:
            for observer in observers:
                observer.completes()
            if progress is not None and status == 200:
                progress.is_complete = True
                self._learn(ask, lease, usage_of_answer(beginning.piece))
            return self._whole_answer(ask, status, headers, beginning.piece)
        if progress is not None:
            progress.begin(now, beginning.piece)
            usage = UsageObserver(partial(self._learn, ask, lease), progress, beginning.piece)
            usage.continues(beginning.piece)
            observers = [*observers, usage]
        # The rest belongs to the request: it ends with the answer, or with the client.
        rest = stack.pop_all()
        state.stack.push_async_callback(rest.aclose)
        stream = EngineStream(
            beginning.piece, exchange, lease, rest, observers, self._naming(ask.asked),
            ask.error_events, state.record,
        )  # fmt: skip
        if long is not None:
            stream.may_end(long.so_far)
        if stream.has_events:  # another name in it is of another length
            headers = without_length(headers)
        return Answer(status, headers, stream)

    def _whole_answer(self, ask: Ask, status: int, headers: list[Header], body: bytes) -> Answer:
        if status < 400:
            changed = self._naming.in_whole(ask.asked, body)
            if changed is not body and dict(headers).get(b"content-type", b"").startswith(_JSON):
                return Answer(status, without_length(headers), changed)
        return Answer(status, headers, body)

    def _learn(self, ask: Ask, lease: Lease, usage: Usage | None) -> None:
        """What an answer says about its tokens is for those who learn from it."""
        if usage is not None:
            ask.sender.state.record.usage = usage
            lease.note_answer(usage)
            if lease.progress is not None and usage.completion_tokens:
                lease.progress.said = usage.completion_tokens
            self._selector.note_answer(ask.selection, usage)


async def _send(ask: Ask, lease: Lease, stack: Held) -> Exchange:
    """Raises as `EngineClient.forward_request`."""
    record = ask.sender.state.record
    ask.wait.engine_asked_at = record.sent_at = trio.current_time()
    engine, kv = lease.engine.client, lease.engine.kv
    body: bytes | BodySource
    if ask.form is not None:
        body = ask.form.source(engine.served_name)
    elif ask.large is not None:
        body = ask.large.source(engine.served_name)
    else:
        body = engine.transform_request(ask.endpoint.name, ask.body, ask.members)
    if kv is not None and kv.takes_turns:
        await lease.switch_conversation()
    if lease.engine.owners is not None and is_read(ask):
        body = await placed(ask, lease, lease.engine.owners, body, stack)
    headers = headers_of(ask, engine)
    exchange = await stack.enter_async_context(
        engine.forward_request(ask.method, ask.target, headers, body)
    )
    record.site = exchange.why_there
    return exchange
