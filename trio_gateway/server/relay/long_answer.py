"""LongAnswer: an answer that ends after `longest_answer`, if others wait for its place by then.

To its client it looks as if it had come to its maximum. A stream gets the events that end it. An
answer that is not streamed is asked for as a stream and put together here, so that what has come
until then is not lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import msgspec
import trio

from trio_gateway.engine.http.exchange import Exchange, Header
from trio_gateway.engine.lease import Lease
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.rawjson import Members, decode_or_none
from trio_gateway.server.api import sse
from trio_gateway.server.api.answer_name import AnswerName
from trio_gateway.server.api.answer_so_far import (
    AnswerSoFar,
    ChatSoFar,
    CompletionSoFar,
    NativeSoFar,
    ending_of,
    reason_of,
)
from trio_gateway.server.api.endpoint import Need
from trio_gateway.server.api.events_so_far import MessagesSoFar, ResponsesSoFar
from trio_gateway.server.budget import Hold
from trio_gateway.server.relay.answer import Answer, AnswerStream
from trio_gateway.server.relay.ask import Ask
from trio_gateway.server.relay.engine_answer import Beginning
from trio_gateway.server.relay.headers import decision_headers, selection_headers

log = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", sse.CONTENT_TYPE.encode())
_WITH_USAGE = b'{"include_usage":true}'


class LongAnswer:
    """Of one try. `so_far`: what has come of it. `scope`: its engine is waited for in it, until the
    answer has begun, or is whole."""

    def __init__(self, ask: Ask, lease: Lease, so_far: AnswerSoFar) -> None:
        self._ask, self._lease, self.so_far = ask, lease, so_far
        self.scope = trio.CancelScope()
        lease.when_ended = self._end

    @classmethod
    def of(cls, ask: Ask, lease: Lease, manager: EngineManager) -> LongAnswer | None:
        """None: it goes on for as long as it takes, or there is no way to end it well."""
        if lease.progress is None or not ask.endpoint.streams:
            return None
        if manager.overview.longest_answer_s(ask.selection.model.name) == math.inf:
            return None
        if not ask.wants_stream and (ask.large is None and not ask.members):
            return None
        so_far = _so_far(ask)
        return None if so_far is None else cls(ask, lease, so_far)

    def _end(self) -> None:
        self.scope.cancel(reason="longest_answer")

    @property
    def is_ended(self) -> bool:
        """Its engine is waited for no more."""
        return self.scope.cancelled_caught

    @property
    def ask(self) -> Ask:
        """As the engine gets it."""
        ask = self._ask
        if ask.wants_stream:
            return ask
        changed = {"stream": b"true"}
        if ask.endpoint.name in ("chat/completions", "completions"):
            changed["stream_options"] = _WITH_USAGE
        if ask.large is not None:
            large = ask.large
            for name, value in changed.items():
                large = large.replaced(name, value)
            return msgspec.structs.replace(ask, large=large)
        members: Members = {**(ask.members or {})}
        members |= {name: msgspec.Raw(value) for name, value in changed.items()}
        return msgspec.structs.replace(ask, members=members, body=msgspec.json.encode(members))

    async def collect(self, exchange: Exchange, beginning: Beginning, hold: Hold) -> Beginning:
        """All of an answer that its client does not want as a stream. Raises as
        `Exchange.receive`, and NoRoom."""
        if self._ask.wants_stream or beginning.is_whole or not sse.has_events(exchange.headers):
            return beginning
        progress, piece = self._lease.progress, beginning.piece
        assert progress is not None, "otherwise it has no limit"
        progress.begin(trio.current_time())
        while piece:
            hold.take(len(piece))
            self.so_far.continues(piece)
            progress.said = self.so_far.tokens
            piece = await exchange.receive()
        exchange.headers = [*_others(exchange.headers), _JSON]
        if (error := self.so_far.error) is not None:
            code = error.get("code")
            exchange.status = code if isinstance(code, int) and 400 <= code <= 599 else 500
            return Beginning(msgspec.json.encode({"error": error}), True)
        return Beginning(self.so_far.whole(), True)

    def answer(self, naming: type[AnswerName]) -> Answer:
        """In place of its engine's, which is waited for no more. Its start was not sent."""
        log.info("request %s: %s", self._ask.state.id, reason_of(self._lease.ended_after_s))
        allows = self._ask.sender.permissions.allows
        decided = decision_headers(self._lease, allows)
        headers = [*selection_headers(self._ask.selection), *decided]
        if self._ask.wants_stream:
            ending = ending_of(self.so_far, self._lease.ended_after_s)
            answer = Answer(200, [_EVENTS, *headers], _Given(ending))
        else:
            ending = naming.in_whole(self._ask.asked, self.so_far.whole())
            answer = Answer(200, [_JSON, *headers], ending)
        for observer in self._ask.state.observers:
            observer.begins(200, answer.headers)
            observer.continues(ending)
            observer.completes()
        return answer


class _Given(AnswerStream):
    """Events that are there already."""

    has_events = True

    def __init__(self, events: bytes) -> None:
        self._events = events

    async def aclose(self) -> None:
        """It holds nothing."""

    async def __anext__(self) -> bytes:
        if self.is_over:
            raise StopAsyncIteration
        self.is_over = True
        return self._events


def _others(headers: Sequence[Header]) -> list[Header]:
    return [h for h in headers if h[0] not in (b"content-type", b"transfer-encoding")]


def _so_far(ask: Ask) -> AnswerSoFar | None:
    model, selection = ask.asked or ask.model.name, ask.selection
    prompt = None if selection.source is CountSource.BOUND else selection.prompt
    needs: dict[Need, Callable[[str, int | None], AnswerSoFar]] = {
        Need.MESSAGES: MessagesSoFar,
        Need.RESPONSES: ResponsesSoFar,
    }
    if (made := needs.get(ask.endpoint.need)) is not None:
        return made(model, prompt)
    if ask.endpoint.name in ("completion", "infill"):
        if not ask.wants_stream and _is_apart(ask):
            return None
        return NativeSoFar(model, prompt, with_ids=_member(ask, "return_tokens") == b"true")
    options = decode_or_none(_member(ask, "stream_options"))
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    if ask.endpoint.need is Need.CHAT:
        return ChatSoFar(model, prompt, with_usage=with_usage)
    if ask.endpoint.name == "completions":
        return CompletionSoFar(model, prompt, with_usage=with_usage)
    return None


def _is_apart(ask: Ask) -> bool:
    """Whether llama.cpp's own answer is not what its stream has in it: a list of several, or only
    the fields that were asked for."""
    if _member(ask, "prompt").startswith(b"[") or _member(ask, "response_fields").startswith(b"["):
        return True
    return _member(ask, "n_cmpl") not in (b"", b"1", b"null")


def _member(ask: Ask, name: str) -> bytes:
    """A member of the request, or the first byte of one that is long; empty without one."""
    if ask.large is not None:
        return ask.large.short_member(name) or ask.large.first_byte(name)
    return bytes((ask.members or {}).get(name, b""))
