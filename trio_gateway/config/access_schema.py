"""Who may call, and within which limits: the frozen structs for those keys of `server`."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.config.priority import Priority

ANY_ORIGIN = "*"
LOCALHOST_PAGES = "localhost"  # as an origin: pages of this machine, on any port


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `secret`: the key itself or its scrypt hash. `models` None: all of them.

    `priority` is what its requests have, and the most that they can ask for. `max_parallel` None:
    no limit of its own. `metrics`: it may read `/metrics`, as an admin may. `forwards`: it is
    another gateway's, which says for whom it asks.
    """

    name: str
    secret: str
    models: frozenset[str] | None = None
    priority: Priority = Priority.INTERACTIVE
    max_parallel: int | None = None
    admin: bool = False
    metrics: bool = False
    forwards: bool = False

    def __repr__(self) -> str:
        """Without the secret: structs end up in logs and in failing tests."""
        return f"ApiKey({self.name!r})"


class AccessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed_origins`: origins such as `https://chat.example.org`, `scheme://*` for all of a
    scheme that is not the web's, ANY_ORIGIN or LOCALHOST_PAGES."""

    api_keys: tuple[ApiKey, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = (LOCALHOST_PAGES,)
    allow_unauthenticated: bool = False

    @property
    def is_open(self) -> bool:
        """Whoever reaches the gateway may use it, as the configuration says."""
        return self.allow_unauthenticated and not self.api_keys


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files. `certificate` may hold a chain, the gateway's own first."""

    certificate: Path
    key: Path


class UnixAddress(msgspec.Struct, frozen=True):
    """A socket file to listen on, with the permissions of the file."""

    path: Path
    mode: int = 0o600

    def __str__(self) -> str:
        return f"unix:{self.path}"


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take. `header_timeout_s` runs from a request's first byte to the end
    of its headers, `body_timeout_s` from there to the end of its body, `send_timeout_s` from the
    last byte of an answer that the client took. `max_connections` of all clients; None: as many as
    the system's limit of open files allows, up to 4,096."""

    max_header_bytes: int = 16 * 1024
    header_timeout_s: float = 30.0
    body_timeout_s: float = 300.0
    send_timeout_s: float = 60.0
    requests_per_connection: int = 1_000_000
    connections_per_address: int = 512
    max_connections: int | None = None


@lru_cache(64)  # asked twice for each request, mostly of one host; to parse it costs 5 µs
def is_loopback(host: str) -> bool:
    """Whether this host, an address or a name, can only be this machine. No name is looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
