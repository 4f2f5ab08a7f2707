"""Places: how many connections there are in total, who gets one, and who makes room.

Each connection is an open file, and the engines need some. So there are fewer places than files,
and the last of them are for this machine: over its loopback addresses and, the very last, its
socket files. When all are taken, a newcomer gets the place of a client that keeps the gateway
waiting. The first to go are those of the address that has the most, then those that have been
silent for longest; last those that were just answered, or are in the middle of a request. So
clients that connect and fall silent shut out nobody but each other, however fast they come.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from typing import Protocol

import trio

from trio_gateway.config.access_schema import is_loopback
from trio_gateway.engine.process import open_files
from trio_gateway.server.api.errors import ApiError

log = logging.getLogger(__name__)

DEFAULT_MAX = 4096
# Each takes two files, its socket and its EndWatch. As many as there are connections are left for
# what requests open: their engine's connection, and an upload's file.
_SHARE_OF_FILES = 3
_LEAST = 4
_KEPT_BACK = 16  # one in so many is kept for loopback, and as many again for socket files
_AT_ONCE = 32  # one in so many makes room, so that not each newcomer has to look at all
PATIENCE_S = 1.0  # with a client in the middle of its request
# From then on a client is silent: one that has connected or begun, and one that was answered.
_TO_BEGIN_S, _TO_ASK_AGAIN_S = 1.0, 5.0
RETRY_S = 1.0
LOG_EVERY_S = 60.0


class Tier(enum.IntEnum):
    """Where a client is. The higher ones have more places, and take them from the lower ones."""

    NETWORK = 0
    LOOPBACK = 1
    SOCKET_FILE = 2


class Silence(enum.IntEnum):
    """What the gateway waits for. Of those that fell silent lately, the first make room first."""

    BEGUN = 0  # a handshake or a head; or the end of a request that is answered
    IDLE = 1  # the next request, after one that was answered
    IN_REQUEST = 2  # more of a body, or for the client to take more of its answer


_SILENT = -1  # for long enough to go before all of these


class Guest(Protocol):
    def silence(self) -> tuple[Silence, float] | None:
        """What is waited for and since when; None if it is the gateway's turn."""
        ...

    def make_room(self, error: ApiError) -> None:
        """End it now; the client gets the error if it has begun a request."""
        ...


class Place:
    """One connection's. `guest` is set once there is one; until then it is not asked to go."""

    __slots__ = ("address", "guest", "tier")

    def __init__(self, address: str | None, tier: Tier) -> None:
        self.address, self.tier = address, tier
        self.guest: Guest | None = None


class Places:
    """`limit`: how many connections there may be, whoever has them."""

    def __init__(self, wanted: int | None = None) -> None:
        self.limit_to(wanted)
        self._taken: dict[Place, None] = {}  # those that leave are not counted
        self._told_at = float("-inf")

    def limit_to(self, wanted: int | None) -> None:
        """From now on; None: by what the system allows."""
        files = open_files.limit() // _SHARE_OF_FILES
        self.limit = max(min(files, DEFAULT_MAX if wanted is None else wanted), _LEAST)

    def __len__(self) -> int:
        return len(self._taken)

    def enter(self, host: str | None, address: str | None) -> Place | None:
        """A place, to be left with `leave`; None: there is none.

        Args:
            host: None for a socket file. address: what is taken as one client.
        """
        tier = _tier_of(host)
        if len(self._taken) >= self._limit_of(tier) and not self._make_room(tier):
            self._say_full()
            return None
        place = Place(address, tier)
        self._taken[place] = None
        return place

    def leave(self, place: Place) -> None:
        self._taken.pop(place, None)

    def error(self) -> ApiError:
        return ApiError(
            503, f"the gateway has {self.limit} connections, and no room for more; try again soon",
            "service_unavailable", code="no_connections_left", retry_after_s=RETRY_S,
        )  # fmt: skip

    def make_room_at(self, address: str) -> bool:
        """Whether one of the address's own connections goes, for another one of it."""
        return self._make_room(Tier.SOCKET_FILE, address)

    def _limit_of(self, tier: Tier) -> int:
        kept_back = max(self.limit // _KEPT_BACK, 1)
        return self.limit - (Tier.SOCKET_FILE - tier) * kept_back

    def _make_room(self, tier: Tier, address: str | None = None) -> bool:
        """Whether somebody goes, who is in the same tier or a lower one, or of this address."""
        now = trio.current_time()
        crowds = Counter(place.address for place in self._taken)
        found = []
        for place in self._taken:
            if place.guest is None or place.tier > tier:
                continue
            if address is not None and place.address != address:
                continue
            silence = place.guest.silence()
            if silence is None:
                continue
            what, since = silence
            rank: int = what
            if what is Silence.IN_REQUEST:
                if now < since + PATIENCE_S:
                    continue
            elif now >= since + (_TO_ASK_AGAIN_S if what is Silence.IDLE else _TO_BEGIN_S):
                rank = _SILENT
            found.append((-crowds[place.address], rank, since, place))
        found.sort(key=lambda entry: entry[:3])
        count = 1 if address is not None else max(self.limit // _AT_ONCE, 1)
        for *_, place in found[:count]:
            assert place.guest is not None
            del self._taken[place]
            place.guest.make_room(self.error())
        return bool(found)

    def _say_full(self) -> None:
        if (now := trio.current_time()) >= self._told_at + LOG_EVERY_S:
            self._told_at = now
            log.warning(
                "there are %d connections, all of them in use; more are refused "
                "(server.max_connections, and a third of what `ulimit -n` allows)",
                len(self._taken),
            )  # fmt: skip


def _tier_of(host: str | None) -> Tier:
    if host is None:
        return Tier.SOCKET_FILE
    return Tier.LOOPBACK if is_loopback(host) else Tier.NETWORK


class AcceptLog(logging.Filter):
    """For trio's log of listeners: that no file is left is one line a minute, without a traceback.
    trio itself tries again ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("accept returned"):
            return True
        now = trio.current_time()
        if now < self._told_at + LOG_EVERY_S:
            return False
        self._told_at = now
        record.exc_info = record.exc_text = None
        record.msg, record.args = (
            "no connection can be accepted: %s; it is tried again until files are free "
            "(`ulimit -n` is %d)",
            ((record.args or ("", "?"))[1], open_files.limit()),  # type: ignore[index]
        )
        return True
