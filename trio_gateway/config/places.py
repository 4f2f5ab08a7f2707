"""Hosts and ports as `Host` and `Origin` write them, read strictly. Pure, and no name is looked up.

What browsers, proxies and libraries could take for different hosts is not taken for one: an empty
label, a zone, a user, a character that is not ASCII, anything after a `]` but a port.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

from trio_gateway.config.access_schema import is_loopback

_LABEL = r"[a-z0-9_-]{1,63}"
_PLACE = re.compile(
    rf"(?:\[(?P<v6>[0-9a-f:.]{{2,45}})\]|(?P<name>{_LABEL}(?:\.{_LABEL})*)\.?)(?::(?P<port>\d{{0,5}}))?",
    re.ASCII,
)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.ASCII)
_NAME_MAX_LENGTH = 253
_PORTS = range(1, 65536)


class Place(NamedTuple):
    """`name`: in small letters, without brackets and the last dot. `port` None: not given."""

    name: str
    port: int | None = None

    @property
    def is_this_machine(self) -> bool:
        """Whether it can be nowhere else; names under .localhost are loopback (RFC 6761)."""
        return is_loopback(self.name) or self.name.endswith(".localhost")


class Origin(NamedTuple):
    scheme: str
    place: Place


@lru_cache(256)  # asked for each request, mostly of one host
def read_place(text: str) -> Place | None:
    """None: it is not a host, with or without a port."""
    match = _PLACE.fullmatch(text.lower())
    if match is None or len(text) > _NAME_MAX_LENGTH + 7:
        return None
    name = match["name"] or _compressed(match["v6"])
    if not name or len(name) > _NAME_MAX_LENGTH:
        return None
    port = int(match["port"]) if match["port"] else None
    return None if port is not None and port not in _PORTS else Place(name, port)


@lru_cache(256)
def read_origin(text: str) -> Origin | None:
    """None: it is not `scheme://host` with or without a port."""
    match = _ORIGIN.fullmatch(text.lower())
    place = read_place(match[2]) if match else None
    return Origin(match[1], place) if match and place else None


@lru_cache(256)
def name_of(address: str) -> str:
    """An address or a name, as a Place has it; without the zone of an IPv6 address."""
    bare = address.partition("%")[0].removeprefix("::ffff:")
    return (_compressed(bare) if ":" in bare else None) or bare.lower()


def _compressed(address: str) -> str | None:
    try:
        return ipaddress.IPv6Address(address).compressed
    except ValueError:
        return None
