"""RequestRecord: what happened to one request, from its first byte to its answer's last. Pure.

The request's own task writes it, and nobody else. Setting a field costs next to nothing; what is
worked out of the fields is worked out when somebody asks (`row.py`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.conversations import NO_MOVE
from trio_gateway.engine.scheduling.events import How, VariantKey
from trio_gateway.server.api.token_events import SeenEvents, opening_of

if TYPE_CHECKING:
    from trio_gateway.engine.lease import Lease, LeaseRequest
    from trio_gateway.engine.scheduling.progress import AnswerProgress
    from trio_gateway.models.cache_breaks import Thread
    from trio_gateway.models.names import Chosen
    from trio_gateway.models.selection import Selection
    from trio_gateway.server.api.trace_context import Trace

NAME_CHARACTERS = 200  # of what a client calls a model: it may be anything, and is kept
CANCELLED = "request_cancelled"  # the error's code, of a request that somebody ended


class Outcome(enum.Enum):
    """How a request ended. `REFUSED`: with an error, before an engine was asked; `FAILED`: with one
    after that. `BROKEN_OFF`: its stream had begun. `CLIENT_GONE`: nobody was there to read."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN_OFF = "broken_off"
    CLIENT_GONE = "client_gone"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__  # enum's own is a Python function


class Stage(enum.Enum):
    """Where a request is."""

    ARRIVING = "arriving"  # it is read and counted
    WAITING = "waiting"  # for an engine
    READING = "reading"  # an engine reads its prompt
    ANSWERING = "answering"
    DONE = "done"


class Way(msgspec.Struct, frozen=True):
    """How a request came by its engine. `variant` of it has this `context`. `granted_at`: when it
    had it, after `queue_s` in line and `load_s` of a load. Of one that got none, `queued_at`: since
    when it was in line, for `queue_s` in vain."""

    engine: int | None = None
    variant: VariantKey | None = None
    context: int = 0
    how: How | None = None
    evicted: tuple[VariantKey, ...] = ()
    granted_at: float | None = None
    queue_s: float = 0.0
    load_s: float = 0.0
    queued_at: float | None = None


_NOWHERE = Way()


class RequestRecord:
    """Times are seconds of the monotonic clock, but `arrived_s`, which is Unix time.

    `endpoint`: the name of its row in the table. `key`: the name of its API key. `request`: its
    place in line, once it is there; `lease`: its engine, until it ends; `way`: how it came by that,
    the last time. `sent_at`: when it was sent to it; `first_byte_at`: when the answer's first byte
    came. `seen`: of an answer that did not come to say how many tokens it has, and once somebody
    has looked its `seen_tokens` and `seen_finish`. `error`: the code of the error that its client
    got. `conversation`: what its client calls that; `thread`: what it is told by otherwise.
    `cache_break`: where it parts from the last request of that. `trace`: which one it belongs to.
    `chosen`: of several models. `site`: at which URL of a remote model that has several it was
    answered, and why there.
    """

    # What a request does not have is read here. To set it all in each took 0.25 us more, and twice
    # as much memory. But Python keeps up to 29 fields without a dict, and more take 1.3 KB:
    # nearly all requests have 26, and whatever comes in addition should be rare.
    asked: str | None = None
    client: str = ""
    priority: Priority = Priority.INTERACTIVE
    selection: Selection | None = None
    request: LeaseRequest | None = None
    lease: Lease | None = None
    way: Way = _NOWHERE
    endpoint: str = ""
    key: str | None = None
    sent_at: float | None = None
    first_byte_at: float | None = None
    ended_at: float | None = None
    is_streamed: bool = False
    tries: int = 0
    status: int = 0
    outcome: Outcome | None = None
    error: str | None = None
    usage: Usage | None = None
    seen: SeenEvents | None = None
    seen_tokens: int | None = None
    seen_finish: str = ""
    kv_restored: int = 0
    kv_saved: int = 0
    kv_spared: int | None = None
    request_bytes: int = 0
    answer_bytes: int = 0
    conversation: str | None = None
    thread: Thread | None = None
    cache_break: str | None = None
    trace: Trace | None = None
    chosen: Chosen | None = None
    site: str = ""

    def __init__(self, id_: str, arrived_at: float, arrived_s: float) -> None:
        self.id, self.arrived_at, self.arrived_s = id_, arrived_at, arrived_s

    @property
    def model(self) -> str | None:
        """The model's own name, once it is known."""
        if self.selection is not None:
            return self.selection.model.name
        return None if self.way.variant is None else self.way.variant.model

    @property
    def generated(self) -> int | None:
        """Tokens of its answer until now: as its engine says or, of a stream, as they were seen."""
        if self.usage is not None:
            return self.usage.completion_tokens
        progress = None if self.lease is None else self.lease.progress
        if progress is not None and progress.is_seen:
            if progress.said is not None:
                return progress.said
            if progress.opening is None:
                progress.opening = opening_of(progress.first)
            return round(progress.tokens)
        if (seen := self.seen) is not None:  # worked out when somebody looks, and then kept
            self.seen_tokens, self.seen_finish, self.seen = seen.tokens, seen.finish, None
        return self.seen_tokens

    @property
    def stage(self) -> Stage:
        if self.ended_at is not None:
            return Stage.DONE
        if self.first_byte_at is not None:
            return Stage.ANSWERING
        if self.lease is not None:
            return Stage.READING
        return Stage.ARRIVING if self.request is None else Stage.WAITING

    def asks(self, model: str | None) -> None:
        """Its client has named this model."""
        self.asked = None if model is None else model[:NAME_CHARACTERS]

    def waits(self, request: LeaseRequest) -> None:
        """It is in line for an engine; again, if it lost the one that it had."""
        self.request, self.lease = request, None
        self.tries += 1

    def has(self, lease: Lease) -> None:
        """It has an engine."""
        grant, engine = lease.grant, lease.engine
        self.lease, self.way = lease, Way(
            grant.engine, engine.key, 0 if engine.info is None else engine.info.context,
            grant.how, grant.evicted, lease.granted_at, lease.queue_s, lease.load_s,
        )  # fmt: skip

    def fails(self, code: str) -> None:
        """Its client gets this error. The first one counts."""
        if self.error is None:
            self.error = code

    def ends(self, now: float, status: int, *, is_gone: bool, is_torn: bool) -> None:
        """It is over, and holds on to nothing any more. `status`: 0 if no answer began. `is_gone`:
        its client went away, or somebody ended it; `is_torn`: its connection was closed in the
        middle of the answer, for want of another way to say that something is missing."""
        self.ended_at, self.status = now, status
        if status >= 400 and self.error is None:
            self.error = f"http_{status}"
        self.outcome = Outcome.OK
        if self.error is not None or is_gone or is_torn:
            self.outcome = self._bad_outcome(is_gone=is_gone, is_torn=is_torn)
        if (lease := self.lease) is not None:
            if lease.kv_move != NO_MOVE:
                self.kv_restored, self.kv_saved = lease.kv_move
                self.kv_spared = lease.spared
            progress = lease.progress
            if self.usage is None and progress is not None and progress.is_seen:
                self.seen = _seen(progress)
            self.lease = None
        elif self.request is not None and self.way.granted_at is None:
            queued_at = max(self.request.arrived_at, self.arrived_at)  # 0: not in line yet
            self.way = Way(queued_at=queued_at, queue_s=now - queued_at)
        self.request = None

    def _bad_outcome(self, *, is_gone: bool, is_torn: bool) -> Outcome:
        if self.error == CANCELLED:
            return Outcome.CANCELLED
        if is_gone:
            return Outcome.CLIENT_GONE
        if is_torn or (self.error is not None and self.is_begun):
            return Outcome.BROKEN_OFF
        return Outcome.REFUSED if self.sent_at is None else Outcome.FAILED

    @property
    def is_begun(self) -> bool:
        """Its client has had some of an engine's answer."""
        return self.first_byte_at is not None and self.status < 400


def _seen(progress: AnswerProgress) -> SeenEvents:
    return SeenEvents.of(progress.first, progress.sample, progress.size)
