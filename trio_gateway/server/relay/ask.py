"""Ask: a request on its way to an engine, and who sent it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from trio_gateway.config.keepalive import KeepaliveStyle, LoadingState
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.scheduling.progress import AnswerProgress
from trio_gateway.models.cache_breaks import CacheBreak
from trio_gateway.models.names import Chosen
from trio_gateway.models.need.excess import Excess
from trio_gateway.models.need.measured_form import Form
from trio_gateway.models.recount import Recount
from trio_gateway.models.selection import Selection
from trio_gateway.rawjson import Members, replace_member
from trio_gateway.server.access.caller import Caller
from trio_gateway.server.access.permissions import Permissions
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoint import Endpoint, Family, Need
from trio_gateway.server.api.errors import ApiError, ErrorEvents
from trio_gateway.server.api.keepalive import KeepaliveEvents
from trio_gateway.server.api.large_body import LargeBody
from trio_gateway.server.api.loading_state import can_reason, reasoning_events
from trio_gateway.server.api.request_body import with_answer_limit
from trio_gateway.server.forms.form_upload import FormUpload
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.http.types import Send
from trio_gateway.server.relay.context_limit import too_long
from trio_gateway.server.relay.early_answer import EVENTS, Opening
from trio_gateway.server.relay.wait import Wait

log = logging.getLogger(__name__)


class Sender(msgspec.Struct, frozen=True):
    """Who sent a request, and the part of its HTTP that goes to an engine. `send`: how an answer
    can begin before there is one; None: it does not."""

    state: RequestState
    caller: Caller
    headers: list[Header]
    permissions: Permissions
    send: Send | None = None


class Ask(msgspec.Struct, frozen=True):
    """A request on its way to an engine.

    `asked`: the model's name as the client wrote it; empty: the answer's name is left alone.
    `target`: path and query at the engine. `members`: of a body that was decoded. `prompt`: what
    its conversation is told by, if any. `counted`: what it was counted as. `form`: the body instead
    of `body`, of a request that is streamed through; `large`: one that was read elsewhere.
    `opening`: how a stream begins that is long in coming. `cache_break`: why an engine will find
    little of it in its cache. `recount`: counts it again; None: it is not counted, or its engine
    has told. `select_anew`: chooses from the beginning, for contexts that turned out to be others.
    `chosen`: of several models, and why.
    """

    sender: Sender
    endpoint: Endpoint
    asked: str
    method: str
    target: str
    body: bytes
    members: Members | None
    wants_stream: bool
    selection: Selection
    prompt: Prompt | None
    wait: Wait
    counted: Form | None = None
    form: FormUpload | None = None
    opening: Opening = EVENTS
    large: LargeBody | None = None
    cache_break: CacheBreak | None = None
    recount: Recount | None = None
    select_anew: Callable[[], Awaitable[Selection]] | None = None
    chosen: Chosen | None = None

    @property
    def state(self) -> RequestState:
        return self.sender.state

    @property
    def model(self) -> ModelConfig:
        return self.selection.model

    @property
    def read_bytes(self) -> int | None:
        """Its size, if nothing is generated for it."""
        if not self.endpoint.only_reads:
            return None
        return len(self.body) if self.large is None else self.large.size

    @property
    def error_events(self) -> ErrorEvents:
        """Errors in a stream of its answer: by the endpoint. What a client says of itself makes no
        other events of them, and Ollama's are translated afterwards."""
        by_path = self.state.family is Family.LLAMACPP
        family = Family.LLAMACPP if by_path else self.endpoint.family
        return ErrorEvents(family, of_responses=self.endpoint.need is Need.RESPONSES)

    def last_words(self, opening: Opening, error: ApiError) -> bytes:
        """The error as the end of an answer that began so, and has nothing of an engine in it."""
        closing = b"" if opening.events is None else opening.events.close()
        event = sse.error_event(self.error_events.of(error), last_sent=b"")
        return opening.encode(closing + event)

    def _style(self, style: KeepaliveStyle, *, reasons: bool) -> KeepaliveStyle:
        wanted = self.sender.caller.keepalive
        if wanted is None:
            own = self.model.loading_state
            if (reasons if own is None else own is LoadingState.REASONING) and self._can_reason:
                return KeepaliveStyle.REASONING
            return style
        if wanted is KeepaliveStyle.REASONING and not self._can_reason:
            return style
        return wanted

    @property
    def _can_reason(self) -> bool:
        return self.opening is not EVENTS or can_reason(self.endpoint)

    def opening_as(self, style: KeepaliveStyle, *, reasons: bool = False) -> Opening:
        """How its answer begins if it has to wait: in this style, or with thoughts if the
        configuration `reasons`, unless its model or its client wants it otherwise. What an Ollama
        client gets has no comments in any."""
        without, style = style, self._style(style, reasons=reasons)
        if style is KeepaliveStyle.COMMENT:
            return self.opening
        of = self.endpoint, self.asked or self.model.name, self.state.id, int(time.time())
        if style is KeepaliveStyle.REASONING:
            signs = KeepaliveEvents(*of) if without is KeepaliveStyle.DATA else None
            return self.opening._replace(events=reasoning_events(*of, signs), is_thought=True)
        if self.opening is not EVENTS:
            return self.opening
        return EVENTS._replace(events=KeepaliveEvents(*of))

    def note(self) -> None:
        """Write down what is asked for."""
        record, selection = self.sender.state.record, self.selection
        record.asked, record.selection = self.asked or selection.model.name, selection
        record.is_streamed, record.chosen = self.wants_stream, self.chosen

    def progress(self) -> AnswerProgress | None:
        """Of its answer, if that is generated and the request was counted."""
        if self.prompt is None:
            return None
        is_seen = self.wants_stream and self.endpoint.streams
        return AnswerProgress(self.selection.prompt, self.selection.answer, is_seen=is_seen)

    def recounted(self) -> Ask:
        """With what the last count said."""
        if self.recount is None or self.recount.selection is self.selection:
            return self
        return msgspec.structs.replace(self, selection=self.recount.selection)

    def as_sent(self) -> Ask:
        """With the answer's maximum lowered, where the selection says so."""
        selection, members = self.selection, self.members
        if selection.clamped is None or selection.answer is None:
            return self
        log.debug("request %s: %s", self.state.id, selection.reason)
        if self.large is not None:
            large = self.large.with_answer_limit(selection.answer)
            return msgspec.structs.replace(self, large=large)
        if members is None:
            return self
        body = self.body
        for name, value in with_answer_limit(members, selection.answer).items():
            if value is not members[name]:
                body = replace_member(body, name, bytes(value), members)
                members = {**members, name: value}
        return msgspec.structs.replace(self, body=body, members=members)

    def too_long(self, excess: Excess) -> ApiError:
        """What its client is told if no context holds it; `selection.excess` knows the numbers."""
        fields = self.large if self.large is not None else self.members or {}
        return too_long(excess, self.endpoint, self.state.family, self.model, fields)
