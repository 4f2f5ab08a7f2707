"""How many connections each client has: `ConnectionCounts`, by what is taken as one client."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from functools import lru_cache

log = logging.getLogger(__name__)

_IPV6_PREFIX = 64  # what one client has of its own


@lru_cache(1024)
def address_group(host: str | None) -> str:
    """What is taken as one client: an IPv4 address, or the network of an IPv6 address."""
    if host is None:
        return "unix"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if (mapped := address.ipv4_mapped) is not None:
        return str(mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))


def _never(address: str) -> bool:
    return False


class ConnectionCounts:
    """Open connections by address. Holds no more entries than there are connections."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[str, int] = {}
        self._told = set[str]()

    def enter(self, address: str, *, takes_place: Callable[[str], bool] = _never) -> bool:
        """Whether there may be one more; if so, `leave` must follow. `takes_place`: asked where the
        limit is reached; true if another one of the address goes for it."""
        count = self._open.get(address, 0)
        if count >= self.limit and not takes_place(address):
            if address not in self._told:  # once, until it has none any more
                self._told.add(address)
                log.warning(
                    "%s has %d connections; more are refused (server.connections_per_address)",
                    address, count,
                )  # fmt: skip
            return False
        self._open[address] = count + 1
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
            self._told.discard(address)

    def __len__(self) -> int:
        return len(self._open)
