"""Which web pages may call: the checks of `Host` and `Origin`, and the answers to preflights.

A page that the user visits can send requests to this machine. Three things tell it from a client:
- `Origin`, which browsers put on all that could change or read something;
- `Host`: under DNS rebinding it is the attacker's name, not one of ours;
- `Sec-Fetch-Site`, for what a page can send without an `Origin` (an image, a link).

Pure: no I/O. Answers never allow credentials (cookies), so that `*` is safe with keys: a page of
another site has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trio_gateway.config.access_schema import ANY_ORIGIN, LOCALHOST_PAGES, is_loopback
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import Header

PREFLIGHT_MAX_AGE_S = 600
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
# What clients in a browser send: those of OpenAI, Anthropic and Ollama, and the gateway's own.
_ALLOWED_HEADERS = frozenset(
    {"accept", "authorization", "content-type", "idempotency-key", "user-agent", "x-api-key"}
)
_ALLOWED_PREFIXES = ("anthropic-", "openai-", "x-gateway-", "x-stainless-")
_ALLOWED_REQUEST_HEADERS_MAX = 64

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_QUOTED_MAX = 100


class BrowserRules(NamedTuple):
    """`hosts`: further names of this gateway, in small letters, with a port or without.
    `origins`: as in AccessConfig. `listen`: the hosts that it listens on."""

    hosts: frozenset[str]
    origins: frozenset[str]
    listen: frozenset[str]

    def check_host(self, values: Sequence[str], server: str | None) -> str:
        """The request's host. `server`: the address that the request came in on, None: a Unix
        socket, which no page can reach.

        Raises:
            ApiError: 400, there is not exactly one; 403, it is not one of this gateway's.
        """
        if len(values) != 1 or not values[0]:
            raise ApiError(400, "the request needs exactly one Host header", code="invalid_host")
        host = values[0].lower()
        name, _ = split_host(host)
        known = (
            server is None
            or is_loopback(name)
            or name.endswith(".localhost")
            or name == server
            or name in self.listen
            or not self.hosts.isdisjoint((host, name, f"[{name}]"))
        )
        if not known:
            message = (
                f'"{host[:_QUOTED_MAX]}" is not a name of this gateway; if it should be, add '
                f'"{name[:_QUOTED_MAX]}" to server.allowed_hosts'
            )
            raise ApiError(403, message, "permission_error", code="host_not_allowed")
        return host

    def check_origin(self, origins: Sequence[str], host: str) -> str | None:
        """The origin as the answer's Access-Control-Allow-Origin names it; None if no page asks.

        Raises:
            ApiError: 403, a page of an origin that is not allowed; 400, more than one.
        """
        if not origins:
            return None
        if len(origins) > 1:
            raise ApiError(
                400, "the request has more than one Origin header", code="invalid_origin"
            )
        origin = origins[0].lower()
        if _is_same_origin(origin, host) or self._allows(origin):
            return origins[0]
        if ANY_ORIGIN in self.origins:
            return ANY_ORIGIN
        message = (
            f'pages of "{origin[:_QUOTED_MAX]}" may not use this gateway; if they should, add it '
            "to server.allowed_origins"
        )
        raise ApiError(403, message, "permission_error", code="origin_not_allowed")

    def check_fetch_site(self, site: str, host: str) -> None:
        """For a request without an `Origin`: what a page of another site loads or opens.

        Raises:
            ApiError: 403.
        """
        if site not in ("cross-site", "same-site") or ANY_ORIGIN in self.origins:
            return
        # To a browser, another port of this machine is the same site.
        local = site == "same-site" and is_loopback(split_host(host)[0])
        if not (local and LOCALHOST_PAGES in self.origins):
            message = (
                "a page on another site may not open this address; type it into the address bar"
            )
            raise ApiError(403, message, "permission_error", code="origin_not_allowed")

    def _allows(self, origin: str) -> bool:
        scheme, _, rest = origin.partition("://")
        if origin in self.origins or (rest and f"{scheme}://*" in self.origins):
            return True
        web = scheme in _DEFAULT_PORTS
        return web and LOCALHOST_PAGES in self.origins and is_loopback(split_host(rest)[0])


def split_host(host: str) -> tuple[str, str]:
    """The name (an IPv6 address without its brackets) and the port, which may be empty."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name.removesuffix("."), port


def _is_same_origin(origin: str, host: str) -> bool:
    """Whatever the scheme: a proxy before us may speak TLS."""
    scheme, _, place = origin.partition("://")
    if scheme not in _DEFAULT_PORTS or not place:
        return False
    port = _DEFAULT_PORTS[scheme]
    return _with_port(place, port) == _with_port(host, port)


def _with_port(place: str, default: str) -> tuple[str, str]:
    name, port = split_host(place)
    return name, port or default


def cors_headers(origin: str | None) -> list[Header]:
    """For any answer; `origin` as `check_origin` gave it."""
    vary = (b"vary", b"Origin")
    if origin is None:
        return [vary]
    return [
        vary,
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
    ]


def preflight_headers(asked: str, private_network: bool) -> list[Header]:
    """The rest of a preflight's answer. `asked`: its Access-Control-Request-Headers."""
    names = [name.strip().lower() for name in asked.split(",")][:_ALLOWED_REQUEST_HEADERS_MAX]
    allowed = [n for n in names if n in _ALLOWED_HEADERS or n.startswith(_ALLOWED_PREFIXES)]
    headers = [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", ", ".join(allowed).encode("latin-1")),
        (b"access-control-max-age", b"%d" % PREFLIGHT_MAX_AGE_S),
    ]
    if private_network:
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers
