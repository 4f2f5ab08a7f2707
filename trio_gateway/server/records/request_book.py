"""RequestBook: the requests that are under way, and the last ones that are over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from trio_gateway.bus import Bus
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.trace_context import Sampler
from trio_gateway.server.records.conversations import SessionHeaders
from trio_gateway.server.records.request_record import RequestRecord

KEPT = 1000
_NO_HEADERS: Mapping[bytes, bytes] = {}


class RequestBegan(msgspec.Struct, frozen=True):
    """A request has come that is for an engine."""

    id: str


class RequestBook:
    """Only requests for an engine are entered: who asks for pages is no news. Each of them is
    published when it is over, and by then it is complete; a RequestBegan, when it comes.

    Args:
        kept: how many are remembered that are over.
        sessions: the names of headers that tell requests of one conversation.
        sampler: where the gateway makes spans of its own; None: it makes none.

    `live`: by their ids, in the order in which they came. `recent`: the newest is the last.
    """

    def __init__(
        self,
        bus: Bus,
        kept: int = KEPT,
        sessions: Sequence[str] = (),
        sampler: Sampler | None = None,
    ) -> None:
        self._sessions, self._sampler = SessionHeaders(sessions), sampler
        self._bus = bus
        self.live: dict[str, RequestRecord] = {}
        self._cancels: dict[str, Callable[[], None]] = {}
        self.recent: deque[RequestRecord] = deque(maxlen=kept)

    def name_conversations(self, headers: Sequence[str]) -> None:
        """By these headers from now on."""
        self._sessions = SessionHeaders(headers)

    def keep(self, count: int) -> None:
        """So many of those that are over."""
        if count != self.recent.maxlen:
            self.recent = deque(self.recent, maxlen=count)

    def sample(self, sampler: Sampler | None) -> None:
        """Make spans of those that come from now on, as it says."""
        self._sampler = sampler

    def begin(
        self,
        record: RequestRecord,
        endpoint: Endpoint,
        key: str | None,
        cancel: Callable[[], None],
        headers: Mapping[bytes, bytes] = _NO_HEADERS,
        as_id: str | None = None,
        conversation: str | None = None,
    ) -> None:
        """A request has come for this row, with this key's name. `end` it. `cancel` ends it before
        it is over. `headers`: the first of each name. `as_id`: what a gateway in front calls it;
        so does this one, unless another request has that id already, as one that is tried again.
        `conversation`: what that gateway tells it by.
        """
        if as_id is not None and not self._knows(as_id):
            record.id = as_id
        record.endpoint, record.key = endpoint.name, key
        record.conversation = self._sessions.session(headers) or conversation
        if self._sampler is not None:
            record.trace = self._sampler.joined(record.trace)
        self.live[record.id], self._cancels[record.id] = record, cancel
        if self._bus.has_listeners(RequestBegan):
            self._bus.publish(RequestBegan(record.id))

    def _knows(self, id_: str) -> bool:
        return id_ in self.live or any(record.id == id_ for record in self.recent)

    def end(self, record: RequestRecord) -> None:
        """It is over, if it was begun."""
        if self.live.pop(record.id, None) is not None:
            del self._cancels[record.id]
            self.recent.append(record)
            self._bus.publish(record)

    def cancel(self, record: RequestRecord) -> None:
        """One that is under way."""
        self._cancels[record.id]()
