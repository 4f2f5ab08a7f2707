"""UsageObserver: what an answer says about its tokens, for those who learn from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from trio_gateway.engine.clients.usage import Usage, usage_of_answer, usage_of_stream
from trio_gateway.server.api import sse

# A stream's last event but its `[DONE]` is in the last pieces, cut in two at the most.
_TAIL_PIECES = 4


class UsageObserver:
    """An AnswerObserver. It keeps the end of the answer only, and looks into that once."""

    def __init__(self, learn: Callable[[Usage], None]) -> None:
        self._learn = learn
        self._status, self._has_events = 0, False
        self._tail: deque[bytes] = deque(maxlen=_TAIL_PIECES)

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._status, self._has_events = status, sse.has_events(headers)

    def continues(self, piece: bytes) -> None:
        self._tail.append(piece)

    def completes(self) -> None:
        usage = None
        if self._has_events:
            usage = usage_of_stream(b"".join(self._tail))
        elif self._status == 200 and len(self._tail) == 1:  # the answer is whole in it
            usage = usage_of_answer(self._tail[0])
        if usage is not None:
            self._learn(usage)
