"""KeyRing: which key a client has, with no hint in the timing, and little spent on a flood.

A plain key is compared by keyed digests, all of them each time. A hashed key costs 16 MiB and
50 ms, so one that was right is remembered (by its digest), and so are those that were wrong; each
is checked once however many requests have it, and one check runs at a time.

From an address with too many wrong keys, or from any when there are too many of them, keys are
still checked, but late: one in LATE_EACH_S, of all of these. Without a check nobody can tell
whether a key is right, and a right one must get in: all clients of a proxy have one address, and
one of them may have an old key. Why this holds:
- Cost: late checks take a tenth of one core at most: each is followed by a pause of nine times its
  length.
- Guessing: 30 keys, and then two in a second, from all the world. That is hopeless for a key of 16
  random characters; and one wrong key again and again is no guess.
- Others: who has been let in is not checked again. Who has not waits behind LATE_PER_ADDRESS of
  each other address; only a flood from more than LATE_MAX / LATE_PER_ADDRESS addresses, or from its
  own address, can keep it out, for as long as that lasts.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections import Counter, OrderedDict
from collections.abc import Sequence

import trio

from trio_gateway.config.access_schema import ApiKey
from trio_gateway.config.key_hash import KeyHash, is_hash, parse_hash
from trio_gateway.server.api.errors import ApiError

WRONG_PER_ADDRESS = 5  # at once; then one more after each WRONG_EACH_S
WRONG_EACH_S = 5.0
WRONG_IN_ALL = 30
WRONG_IN_ALL_EACH_S = 1.0
WAITING_MAX = 64  # checks; more get 429
LATE_EACH_S = 1.0
LATE_REST = 9.0  # times as long as a check took
LATE_PER_ADDRESS = 2  # that wait; more get 429
LATE_MAX = 64
REMEMBERED_MAX = 1024  # addresses, and digests of wrong keys
_DIGEST_BYTES = 32


class WrongKeys:
    """How many wrong keys came from where. Pure: the time is given, memory is bounded.

    Each address has a bucket that fills by one for each wrong key and leaks one in WRONG_EACH_S,
    and one bucket is for all.
    """

    def __init__(self) -> None:
        # The fill and when it was that. The addresses seen last are kept.
        self._addresses: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (0.0, 0.0)

    def wait_s(self, address: str, now: float) -> float:
        """How long until this address may have a key checked at once; 0: now."""
        own = _level(self._addresses.get(address, (0.0, now)), now, WRONG_EACH_S)
        total = _level(self._all, now, WRONG_IN_ALL_EACH_S)
        return max(
            (own - WRONG_PER_ADDRESS + 1) * WRONG_EACH_S,
            (total - WRONG_IN_ALL + 1) * WRONG_IN_ALL_EACH_S,
            0.0,
        )

    def note(self, address: str, now: float) -> None:
        own = self._addresses.pop(address, (0.0, now))
        self._addresses[address] = (_level(own, now, WRONG_EACH_S) + 1, now)
        while len(self._addresses) > REMEMBERED_MAX:
            self._addresses.popitem(last=False)
        self._all = (_level(self._all, now, WRONG_IN_ALL_EACH_S) + 1, now)

    def __len__(self) -> int:
        return len(self._addresses)


def _level(bucket: tuple[float, float], now: float, leak_s: float) -> float:
    level, at = bucket
    return max(level - (now - at) / leak_s, 0.0)


class KeyRing:
    """The keys of the configuration."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._salt = secrets.token_bytes(32)  # digests of one run say nothing about another's
        self._plain = [(self._digest(k.secret), k) for k in keys if not is_hash(k.secret)]
        self._hashed = [(parse_hash(k.secret), k) for k in keys if is_hash(k.secret)]
        # At most as many as there are hashed keys: only these can be verified.
        self._verified: dict[bytes, ApiKey] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._wrong = WrongKeys()
        self._one, self._late = trio.Lock(), trio.Lock()
        self._late_waiting = Counter[str]()  # by address
        self._next_late_at = -math.inf
        self._under_way: dict[bytes, trio.Event] = {}  # checks, by digest; set when one is over
        self.checks = 0  # of hashes, in this run

    async def find(self, given: Sequence[str], address: str) -> ApiKey | None:
        """The key that one of the given texts is; None if none is.

        Raises:
            ApiError: 429, this cannot be checked now.
        """
        digests = [self._digest(text) for text in given]
        for digest in digests:
            if (known := self._known(digest)) is not None:
                return known
        if not self._hashed:
            return None
        for text, digest in zip(given, digests, strict=True):
            found = await self._find_hashed(text, digest, address)
            if found is not None:
                return found
        return None

    def _digest(self, text: str) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._salt, digest_size=_DIGEST_BYTES).digest()

    def _known(self, digest: bytes) -> ApiKey | None:
        found = None
        for known, key in self._plain:
            if hmac.compare_digest(known, digest):
                found = key
        return found or self._verified.get(digest)

    async def _find_hashed(self, text: str, digest: bytes, address: str) -> ApiKey | None:
        while digest not in self._refused:
            if (known := self._known(digest)) is not None:
                return known
            if (other := self._under_way.get(digest)) is None:
                return await self._check_alone(text, digest, address)
            await other.wait()
        return None

    async def _check_alone(self, text: str, digest: bytes, address: str) -> ApiKey | None:
        over = self._under_way[digest] = trio.Event()
        try:
            return await self._check(text, digest, address)
        finally:
            del self._under_way[digest]
            over.set()

    async def _check(self, text: str, digest: bytes, address: str) -> ApiKey | None:
        if not self._is_late(address):
            if self._one.statistics().tasks_waiting >= WAITING_MAX:
                raise _try_later(1.0)
            async with self._one:
                if not self._is_late(address):  # others from there may have been wrong meanwhile
                    found = await self._match(text, digest)
                    if found is None:
                        self._wrong.note(address, trio.current_time())
                    return found
        return await self._check_late(text, digest, address)

    async def _check_late(self, text: str, digest: bytes, address: str) -> ApiKey | None:
        waiting = self._late_waiting
        if waiting[address] >= LATE_PER_ADDRESS or waiting.total() >= LATE_MAX:
            raise _try_later(LATE_EACH_S * (1 + waiting.total()))
        waiting[address] += 1
        try:
            async with self._late:
                await trio.sleep_until(self._next_late_at)
                async with self._one:
                    began = trio.current_time()
                    found = await self._match(text, digest)
                    now = trio.current_time()
                self._next_late_at = now + max(LATE_EACH_S, LATE_REST * (now - began))
                return found
        finally:
            waiting[address] -= 1
            if not waiting[address]:
                del waiting[address]

    def _is_late(self, address: str) -> bool:
        return self._wrong.wait_s(address, trio.current_time()) > 0

    async def _match(self, text: str, digest: bytes) -> ApiKey | None:
        self.checks += 1
        index = await trio.to_thread.run_sync(_matching, self._hashed, text)
        if index is not None:
            key = self._hashed[index][1]
            self._verified[digest] = key
            return key
        self._refused[digest] = None
        while len(self._refused) > REMEMBERED_MAX:
            self._refused.popitem(last=False)
        return None


def _matching(hashed: Sequence[tuple[KeyHash, ApiKey]], text: str) -> int | None:
    """All of them each time, so that the time does not tell which one it was."""
    found = None
    for index, (known, _) in enumerate(hashed):
        if known.matches(text):
            found = index
    return found


def _try_later(wait_s: float) -> ApiError:
    return ApiError(
        429, "too many wrong API keys; check yours, and try again later", "rate_limit_error",
        code="too_many_wrong_keys", retry_after_s=wait_s,
    )  # fmt: skip
