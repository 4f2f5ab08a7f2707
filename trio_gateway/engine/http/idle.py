"""IdleConnections: those to one engine that wait for their next request.

A connection is kept if its answer was read to its end and its server keeps it as well, for a little
less time than the server does. There is no timer: those that are too old are closed when a request
comes upon them, and with each health check. Nobody waits here for a connection: without one that
can be used, another is opened.
"""

from __future__ import annotations

import functools
from collections.abc import Sized
from typing import NamedTuple

import trio

from trio_gateway.engine.http.opener import Opener
from trio_gateway.engine.http.transport import Transport

KEPT_MAX = 16  # to one engine
KEEP_MAX_S = 60.0  # whatever the server says
KEEP_MARGIN_S = 1.0  # a request under way must not meet the server's close
NO_LIMIT = 1 << 30


class KeepAlive(NamedTuple):
    """For how long a server keeps an idle connection, and how many requests it takes on one."""

    timeout_s: float | None = None
    requests_max: int = NO_LIMIT


@functools.lru_cache(maxsize=64)  # each of an engine's answers has the same
def parse_keep_alive(value: bytes) -> KeepAlive:
    """A `Keep-Alive` header, such as `timeout=5, max=100`; what cannot be read says nothing."""
    said = KeepAlive()
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if number.isdigit() and len(number) < 10:
            if name.lower() == b"timeout":
                said = said._replace(timeout_s=float(number))
            elif name.lower() == b"max":
                said = said._replace(requests_max=int(number))
    return said


_Kept = tuple[Transport, float]  # the time until which it may be used


class IdleConnections:
    """`most`: none is kept that would be one more than these, those in use included. Each takes a
    thread of llama.cpp's server, which has only a few more of them than slots.

    `users`: those that take connections from here, and bring them back.
    """

    def __init__(self, most: int = KEPT_MAX) -> None:
        self.most = most
        self.users: list[Sized] = []
        self._kept: dict[Opener, list[_Kept]] = {}  # of each, the one used last is the last

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def keep(self, transport: Transport, opener: Opener, said: KeepAlive, now: float) -> None:
        """Keep a connection that nobody uses any more, or close it."""
        timeout_s = opener.keep_s if said.timeout_s is None else said.timeout_s
        keep_s = min(timeout_s - KEEP_MARGIN_S, KEEP_MAX_S)
        worn = transport.exchanges >= said.requests_max
        there = sum(map(len, (*self._kept.values(), *self.users)))
        if keep_s <= 0 or worn or there >= self.most:
            transport.close()
        else:
            self._kept.setdefault(opener, []).append((transport, now + keep_s))

    def take(self, wanted: Opener, now: float) -> Transport | None:
        """One that can be used, the one used last first; None: there is none."""
        kept = self._kept.get(wanted)
        while kept:
            transport, until = kept.pop()
            if transport.is_quiet and now < until:
                return transport
            transport.close()  # too old, or its server has closed it, or said what nobody asked
        return None

    def drop_old(self) -> None:
        """Close those that their server is about to close."""
        now = trio.current_time()
        for opener, kept in [*self._kept.items()]:
            for transport, until in kept:
                if until <= now:
                    transport.close()
            if young := [each for each in kept if each[1] > now]:
                self._kept[opener] = young
            else:
                del self._kept[opener]

    def drop(self, opener: Opener) -> None:
        """Close those to this server."""
        for transport, _ in self._kept.pop(opener, ()):
            transport.close()

    def drop_all(self) -> None:
        for opener in [*self._kept]:
            self.drop(opener)
