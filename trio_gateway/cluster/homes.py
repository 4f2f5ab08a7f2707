"""Homes: which replica has read a conversation, and where a request of it goes. Pure."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping

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
        # By replica, the ids of requests from here and their keys.
        self._works_on: dict[str, dict[str, str]] = {}

    def order(self, key: str, told: Mapping[str, int], now: float) -> list[str]:
        """All replicas, the one first that should have the request: where its conversation was
        last, if that has a free place. `told`: by replica, how many requests it says that it has;
        0 if it did not say lately."""
        self._forget_old(now)
        known = self._homes.get(key)
        home = None if known is None else known[0]
        share = (sum(self._counts[name] for name in told) + 1) / max(len(told), 1)
        most = max(math.ceil(share), int(MOST_OF_SHARE * share))

        def rank(name: str) -> tuple[bool, bool, bool, bytes]:
            works_on = max(told[name], len(self._works_on.get(name, ())))
            is_crowded = self._counts[name] >= most
            return works_on >= self._places, name != home, is_crowded, _distance(key, name)

        return sorted(told, key=rank)

    def begins(self, request: str, replica: str, key: str, now: float) -> None:
        """A request with this id went there. `key`: of its conversation, which is at home there
        from now on, as that has read the most of it. Not if its home works on another request of
        this key: an agent may have several at a time. Empty: it belongs to none."""
        known = self._homes.get(key)
        if key and not (known and known[0] != replica and key in self._keys_at(known[0])):
            self._forget(key)
            self._homes[key] = replica, now
            self._counts[replica] += 1
            if len(self._homes) > KEPT_MAX:
                self._forget(next(iter(self._homes)))
        self._works_on.setdefault(replica, {})[request] = key

    def ends(self, request: str, replica: str) -> None:
        """It is over, however."""
        works_on = self._works_on.get(replica, {})
        works_on.pop(request, None)
        if not works_on:
            self._works_on.pop(replica, None)

    def _keys_at(self, replica: str) -> Collection[str]:
        return self._works_on.get(replica, {}).values()

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
