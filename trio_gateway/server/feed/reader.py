"""FeedReader: one reader of the feed, with its place in the ring and nothing else."""

from __future__ import annotations

import msgspec
import trio

from trio_gateway.server.feed.feed import Feed, encoded
from trio_gateway.server.feed.followed_lines import FollowedLines
from trio_gateway.server.feed.rows import Behind, Kind
from trio_gateway.server.feed.view import View
from trio_gateway.tasks import first_of

HEARTBEAT_S = 15.0
SIGN_OF_LIFE = b": the gateway is here\n\n"
PIECE_BYTES = 65536
_BEHIND = msgspec.json.encode(
    Behind("this reader was too slow; what follows is all that there is now")
)


class FeedReader:
    """Use it within `Feed.reading`. `next` gives it piece by piece.

    Args:
        last_id: of the last event that the reader has; empty: it begins. What is not known (of
            another run, or no longer kept) is the same.
        lines: of the logs that it follows as well.
    """

    def __init__(
        self, feed: Feed, view: View, last_id: str = "", lines: FollowedLines | None = None
    ) -> None:
        self._feed, self._view, self._lines = feed, view, lines
        self._place = self._place_of(last_id)
        self._sent_at = trio.current_time()

    def _place_of(self, last_id: str) -> int | None:
        run, _, number = last_id.rpartition("-")
        if run != self._feed.run_id or not (number.isascii() and number.isdigit()):
            return None
        if len(number) > 18 or not self._feed.ring.has_after(int(number)):
            return None
        return int(number) if self._feed.is_awake else None

    async def next(self) -> bytes:
        """What comes next: events, or a sign of life."""
        feed = self._feed
        while True:
            told = feed.told
            piece = self._take() if feed.is_awake else b""
            lines = self._lines if self._place is not None else None  # a snapshot comes first
            if lines is not None:
                piece += lines.take()
            if piece:
                break
            with trio.move_on_at(self._sent_at + HEARTBEAT_S) as silence:
                await (told.wait() if lines is None else first_of(told.wait, lines.wait))
            if silence.cancelled_caught:
                piece = SIGN_OF_LIFE
                break
        self._sent_at = trio.current_time()
        return piece

    def _take(self) -> bytes:
        """As much as is there; empty: nothing is."""
        ring, place = self._feed.ring, self._place
        if place is None or not ring.has_after(place):
            self._place = ring.last
            snapshot = self._feed.snapshot(self._view)
            if place is None:
                return snapshot
            self._feed.misses(ring.last - place)
            return self._say_behind(ring.last) + snapshot
        pieces, size = list[bytes](), 0
        for number, entry in ring.after(place):
            self._place = number
            if text := self._view.text_of(entry):
                pieces.append(text)
                size += len(text)
            if size >= PIECE_BYTES:
                break
        return b"".join(pieces)

    def _say_behind(self, number: int) -> bytes:
        return encoded(Kind.BEHIND, f"{self._feed.run_id}-{number}", _BEHIND)
