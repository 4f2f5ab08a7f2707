"""RequestBook: the requests that are under way, and the last ones that are over."""

from __future__ import annotations

from collections import deque

from trio_gateway.bus import Bus
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.records.request_record import RequestRecord

KEPT = 1000


class RequestBook:
    """Only requests for an engine are entered: who asks for pages is no news. Each of them is
    published when it is over, and by then it is complete.

    Args:
        kept: how many are remembered that are over.

    `live`: by their ids, in the order in which they came. `recent`: the newest is the last.
    """

    def __init__(self, bus: Bus, kept: int = KEPT) -> None:
        self._bus = bus
        self.live: dict[str, RequestRecord] = {}
        self.recent: deque[RequestRecord] = deque(maxlen=kept)

    def begin(self, record: RequestRecord, endpoint: Endpoint, key: str | None) -> None:
        """A request has come for this row, with this key's name. `end` it."""
        record.endpoint, record.key = endpoint.name, key
        self.live[record.id] = record

    def end(self, record: RequestRecord) -> None:
        """It is over, if it was begun."""
        if self.live.pop(record.id, None) is not None:
            self.recent.append(record)
            self._bus.publish(record)
