"""UsageObserver: what a stream says about its tokens, for those who learn from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from trio_gateway.engine.clients.usage import Usage, usage_of_stream

# A stream's last event but its `[DONE]` is in the last pieces, cut in two at the most.
_TAIL_PIECES = 4


class UsageObserver:
    """An AnswerObserver. It keeps the end of the answer only, and looks into that once.

    `learn` is called with what a complete stream says; None: it says nothing.
    """

    def __init__(self, learn: Callable[[Usage | None], None]) -> None:
        self._learn = learn
        self._tail: deque[bytes] = deque(maxlen=_TAIL_PIECES)
        self.continues = self._tail.append  # for each piece: nothing else is done with most of them

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Whatever it is, only events have a usage at their end."""

    def completes(self) -> None:
        self._learn(usage_of_stream(b"".join(self._tail)))
