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

from trio_gateway.config.access_schema import ANY_ORIGIN, LOCALHOST_PAGES
from trio_gateway.config.places import Origin, Place, name_of, read_origin, read_place
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import Header

PREFLIGHT_MAX_AGE_S = 600
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
# What clients in a browser send: those of OpenAI, Anthropic and Ollama, and the gateway's own.
_ALLOWED_HEADERS = frozenset(
    {
        "accept", "authorization", "cache-control", "content-type", "idempotency-key", "user-agent",
        "x-api-key", "x-client-request-id", "x-request-id", "x-requested-with",
        # What programs add that trace requests (OpenTelemetry, Sentry, Zipkin)…
        "traceparent", "tracestate", "baggage", "sentry-trace", "b3",
        # … and those that were written for OpenRouter, to say who they are.
        "http-referer", "x-title",
    }
)  # fmt: skip
_ALLOWED_PREFIXES = (
    "anthropic-", "openai-", "x-b3-", "x-datadog-", "x-gateway-", "x-openrouter-", "x-stainless-",
)  # fmt: skip
_ALLOWED_REQUEST_HEADERS_MAX = 64

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Of programs with a web view, whose pages are on this machine as well; no page of the web has it.
_LOCAL_SCHEMES = (*_DEFAULT_PORTS, "tauri")
_QUOTED_MAX = 100


class BrowserRules(NamedTuple):
    """`hosts`: further places of this gateway; without a port, on any. `origins`: as in
    AccessConfig. `listen`: the hosts that it listens on, as `name_of` writes them."""

    hosts: frozenset[Place]
    origins: frozenset[str]
    listen: frozenset[str]

    def check_host(self, values: Sequence[str], server: str | None) -> Place:
        """The request's host. `server`: the address that the request came in on; None: a Unix
        socket, which a page reaches through a proxy that passes the page's own host on.

        Raises:
            ApiError: 400, there is not exactly one; 403, it is not one of this gateway's.
        """
        if len(values) != 1 or not values[0]:
            raise ApiError(400, "the request needs exactly one Host header", code="invalid_host")
        host = read_place(values[0])
        if host is None:
            raise ApiError(400, "the Host header is not a host and a port", code="invalid_host")
        known = (
            host.is_this_machine
            or (server is not None and host.name == name_of(server))
            or host.name in self.listen
            or host in self.hosts
            or Place(host.name) in self.hosts
        )
        if not known:
            name = f"[{host.name}]" if ":" in host.name else host.name
            message = (
                f'"{values[0][:_QUOTED_MAX]}" is not a name of this gateway; if it should be, add '
                f'"{name[:_QUOTED_MAX]}" to server.allowed_hosts'
            )
            raise ApiError(403, message, "permission_error", code="host_not_allowed")
        return host

    def check_origin(self, origins: Sequence[str], host: Place) -> str | None:
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
        if self._lists(origin) or self._takes(read_origin(origin), host):
            return origins[0]
        if ANY_ORIGIN in self.origins:
            return ANY_ORIGIN
        message = (
            f'pages of "{origin[:_QUOTED_MAX]}" may not use this gateway; if they should, add it '
            "to server.allowed_origins"
        )
        raise ApiError(403, message, "permission_error", code="origin_not_allowed")

    def check_fetch_site(self, site: str, host: Place) -> None:
        """For a request without an `Origin`: what a page of another site loads or opens.

        Raises:
            ApiError: 403.
        """
        if site not in ("cross-site", "same-site") or ANY_ORIGIN in self.origins:
            return
        # To a browser, another port of this machine is the same site.
        local = site == "same-site" and host.is_this_machine
        if not (local and LOCALHOST_PAGES in self.origins):
            message = (
                "a page on another site may not open this address; type it into the address bar"
            )
            raise ApiError(403, message, "permission_error", code="origin_not_allowed")

    def _lists(self, origin: str) -> bool:
        scheme, _, rest = origin.partition("://")
        return origin in self.origins or bool(rest and f"{scheme}://*" in self.origins)

    def _takes(self, origin: Origin | None, host: Place) -> bool:
        if origin is None:
            return False
        local = origin.scheme in _LOCAL_SCHEMES and origin.place.is_this_machine
        return (local and LOCALHOST_PAGES in self.origins) or _is_same_origin(origin, host)


def _is_same_origin(origin: Origin, host: Place) -> bool:
    """Whatever the scheme: a proxy before us may speak TLS."""
    default = _DEFAULT_PORTS.get(origin.scheme)
    if default is None or origin.place.name != host.name:
        return False
    return (origin.place.port or default) == (host.port or default)


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
