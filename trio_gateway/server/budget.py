"""Budget: how many bytes of clients the gateway holds, in memory and in files, and how many it may.

Each request has a `Hold`, which says what is held for it: its body, an answer that is read whole,
messages of a WebSocket, an upload that waits for its engine, a dump. All of it is given back when
the request ends. A body whose length is known is taken at once, one in chunks as it comes.

What is too much is refused (503), and never waited for: a request that holds a part and waits for
more would wait for others that do the same. Only a form whose model is known waits, unread, as it
waits for its engine and not for room (`form_upload.py`).

Pure, but for `memory_of_this_machine`. A byte counts once, however many copies exist for a moment.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from trio_gateway.config.sizes import format_size
from trio_gateway.server.api.errors import ApiError

RETRY_S = 2.0
_SHARE_OF_MEMORY = 4
_MOST_BYTES = 4 * 1024**3
_SPOOLED_BODIES = 10  # of the largest size
_SHARE_OF_A_CLIENT = 2
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNLIMITED = 2**63


class NoRoom(ApiError):
    """503 while others hold so much; 413 for what would not fit if nothing else was held."""


class Pot:
    """One kind of room. `held` by all, of `limit` bytes; `refused`: how often there was no room.

    A client may hold half of it, so that no client takes all; one request alone may take all, as
    it could never be served otherwise.
    """

    def __init__(self, key: str, limit: int) -> None:
        self.key, self.limit = key, limit
        self.held = self.refused = 0
        self._by_client: dict[str, int] = {}

    def take(self, client: str, size: int, own: int) -> None:
        """`own`: what the same request holds already. Raises NoRoom."""
        before = self._by_client.get(client, 0)
        if self.held + size > self.limit or (
            before > own and before + size > self.limit // _SHARE_OF_A_CLIENT
        ):
            self.refused += 1
            raise self._no_room(size + own)
        self.held += size
        self._by_client[client] = before + size

    def give(self, client: str, size: int) -> None:
        self.held -= size
        left = self._by_client[client] - size
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]

    def _no_room(self, size: int) -> NoRoom:
        limit = f"server.{self.key} is {format_size(self.limit)}"
        if size > self.limit:
            message = f"the request is larger than all that may be held at a time ({limit})"
            return NoRoom(413, message, code="body_too_large")
        return NoRoom(
            503, f"too much of requests is held at the moment ({limit}); try again soon",
            "service_unavailable", code="too_much_held", retry_after_s=RETRY_S,
        )  # fmt: skip


class Budget:
    """For all requests. Without limits by default.

    Args:
        memory_bytes, file_bytes: `server.max_buffered`, `server.max_spooled`.
    """

    def __init__(self, memory_bytes: int = _UNLIMITED, file_bytes: int = _UNLIMITED) -> None:
        self.memory = Pot("max_buffered", memory_bytes)
        self.files = Pot("max_spooled", file_bytes)

    def hold(self, client: str = "") -> Hold:
        return Hold(self, client)

    def facts(self) -> dict[str, int]:
        """For `/gateway/queue`."""
        return {
            "buffered_bytes": self.memory.held,
            "max_buffered_bytes": self.memory.limit,
            "spooled_bytes": self.files.held,
            "max_spooled_bytes": self.files.limit,
            "refused": self.memory.refused + self.files.refused,
        }


class Hold:
    """What is held for one request. `client`: whose it is, to be set before anything is taken."""

    __slots__ = ("_budget", "_is_closed", "client", "in_files", "in_memory")

    def __init__(self, budget: Budget, client: str) -> None:
        self._budget, self.client = budget, client
        self._is_closed = False
        self.in_memory = self.in_files = 0

    def take(self, size: int) -> None:
        """Raises NoRoom; then nothing is taken."""
        if size and not self._is_closed:
            self._budget.memory.take(self.client, size, self.in_memory)
            self.in_memory += size

    def give(self, size: int) -> None:
        if size := min(size, self.in_memory):
            self._budget.memory.give(self.client, size)
            self.in_memory -= size

    def take_file(self, size: int) -> None:
        """Raises NoRoom; then nothing is taken."""
        if size and not self._is_closed:
            self._budget.files.take(self.client, size, self.in_files)
            self.in_files += size

    def give_file(self, size: int) -> None:
        if size := min(size, self.in_files):
            self._budget.files.give(self.client, size)
            self.in_files -= size

    def close(self) -> None:
        """Give back all of it. What comes late is about to be dropped, and counts nowhere."""
        if self.in_memory:
            self._budget.memory.give(self.client, self.in_memory)
        if self.in_files:
            self._budget.files.give(self.client, self.in_files)
        self.in_memory = self.in_files = 0
        self._is_closed = True


def default_memory_bytes() -> int:
    """For `server.max_buffered`: a quarter of the memory, at most 4 GiB."""
    return min(memory_of_this_machine() // _SHARE_OF_MEMORY, _MOST_BYTES)


def default_file_bytes(max_body_bytes: int) -> int:
    """For `server.max_spooled`: some of the largest uploads."""
    return _SPOOLED_BODIES * max_body_bytes


def memory_of_this_machine() -> int:
    """Or of the container. If neither is known, as much as makes the default its largest."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no such question
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # ValueError: "max"
            known.append(int(Path(file).read_text()))
    return min(known, default=_SHARE_OF_MEMORY * _MOST_BYTES)
