"""Homes: which replica has read a conversation, and where a request of it goes. Pure."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping

KEPT_MAX = 10_000  # conversations
KEPT_S = 3600.0  # after the last request of one
# Where there are many, no replica has more than so much of what is its share. Of few, no more than
# its share: three of four would read each other's prompts out of its slots.
MOST_OF_SHARE = 1.25


class Homes:
    """Of one router. Whoever else chooses has no part of it, and mostly chooses alike all the same:
    a conversation that is not known goes where its key says, by rendezvous hashing.

    `places`: requests that a replica works on at a time.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        # By key, the replica and when it had the last request. What was used last is at the end.
        self._homes: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._counts: Counter[str] = Counter()  # of conversations, by replica

    def order(self, key: str, busy: Mapping[str, int], now: float) -> list[str]:
        """All replicas, the one first that should have the request: where its conversation was
        last, if that has a free place. `busy`: by replica, the requests that it works on."""
        self._forget_old(now)
        known = self._homes.get(key)
        home = None if known is None else known[0]
        share = (sum(self._counts[name] for name in busy) + 1) / max(len(busy), 1)
        most = max(math.ceil(share), int(MOST_OF_SHARE * share))

        def rank(name: str) -> tuple[bool, bool, bool, bytes]:
            is_full, is_crowded = busy[name] >= self._places, self._counts[name] >= most
            return is_full, name != home, is_crowded, _distance(key, name)

        return sorted(busy, key=rank)

    def note(self, key: str, replica: str, now: float) -> None:
        """A request of this conversation went there: it has read the most of it."""
        self._forget(key)
        self._homes[key] = replica, now
        self._counts[replica] += 1
        if len(self._homes) > KEPT_MAX:
            self._forget(next(iter(self._homes)))

    def _forget_old(self, now: float) -> None:
        while self._homes:
            key, (_, used_at) = next(iter(self._homes.items()))
            if used_at + KEPT_S > now:
                return
            self._forget(key)

    def _forget(self, key: str) -> None:
        if (known := self._homes.pop(key, None)) is not None:
            replica = known[0]
            self._counts[replica] -= 1
            if not self._counts[replica]:
                del self._counts[replica]


def _distance(key: str, replica: str) -> bytes:
    """Of a conversation to a replica: with one more or less of those, others stay as they were."""
    return hashlib.blake2b(f"{key} {replica}".encode(), digest_size=8).digest()
