"""AccessGuard: who may call. ASGI middleware between `RequestScopes` and the app.

In this order: the host and the page (`browser_rules.py`), a preflight is answered, the key
(`key_ring.py`), what the key may do, whether the request goes in a circle (`hops.py`), how many of
the key's are under way. A refused request is not read, takes no ticket, and gets a request id and
CORS headers like any other. What was decided is in the scope as its `Permissions`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from trio_gateway.config.access_schema import ApiKey, is_loopback
from trio_gateway.config.places import Place, name_of, read_place
from trio_gateway.config.schema import ServerConfig
from trio_gateway.engine.clients.hops import VIA
from trio_gateway.server.access.browser_rules import (
    BrowserRules,
    cors_headers,
    preflight_headers,
)
from trio_gateway.server.access.forwarded import person_in
from trio_gateway.server.access.hops import check_hops
from trio_gateway.server.access.key_ring import KeyRing
from trio_gateway.server.access.page_paths import is_of_page, leads_to_page
from trio_gateway.server.access.permissions import (
    EVERYTHING,
    NOTHING,
    PERMISSIONS_KEY,
    Permissions,
)
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.connection_counts import address_group
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.http.types import (
    FIRST_KEY,
    REQUEST_KEY,
    AsgiApp,
    Header,
    Receive,
    Scope,
    Send,
)

log = logging.getLogger(__name__)

_FREE_PATHS = frozenset({"/health", "/v1/health"})
# Slots show what other clients' conversations are about, in some builds their very text.
# Metrics name all models, and how much each is used.
METRICS_PATH = "/metrics"
# How much there is to do, which a gateway in front wants to know.
QUEUE_PATH = "/gateway/queue"
_ADMIN_PLACES = frozenset({"gateway", "upstream", "slots", "metrics"})
# Of these each key gets what is its own.
_OWN_VIEWS = frozenset(
    {"/gateway/events", "/gateway/models", "/gateway/requests", "/gateway/usage"}
)
_CANCEL = re.compile("/gateway/requests/[0-9a-f]+/cancel")
_KEYS_GIVEN_MAX = 4  # headers that are looked at; a client has one or two
_PARALLEL_RETRY_S = 1.0
_HOSTS_KEPT = 256
_NO_ORIGIN = cors_headers(None)
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::"})


def _is_own_view(path: str) -> bool:
    return path in _OWN_VIEWS or _CANCEL.fullmatch(path) is not None


def needs_admin(path: str) -> bool:
    """Whether only an admin's key may use it. Where it is not sure how a path is read, it does."""
    if _is_own_view(path):
        return False
    first = unquote(path).lstrip("/").partition("/")[0]
    return first.lower() in _ADMIN_PLACES


class _Headers(msgspec.Struct, frozen=True):
    """The headers that the guard reads, as text; each may come more than once. `first`: the first
    of each name."""

    every: Sequence[Header]
    first: Mapping[bytes, bytes]

    def raw(self, name: bytes) -> tuple[bytes, ...]:
        if name not in self.first:
            return ()
        if len(self.first) == len(self.every):  # as nearly always: no name comes twice
            return (self.first[name],)
        return tuple(v for n, v in self.every if n == name)

    def all(self, name: bytes) -> list[str]:
        return [_text(v) for v in self.raw(name)]

    def one(self, name: bytes) -> str:
        return _text(self.first.get(name, b""))

    def keys(self) -> list[str]:
        """What may be an API key, wherever it stands."""
        bearers = (re.fullmatch(r"(?i)bearer +(\S+)", v) for v in self.all(b"authorization"))
        found = [match[1] for match in bearers if match] + self.all(b"x-api-key")
        return [key for key in found if key][:_KEYS_GIVEN_MAX]


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \t")


class AccessGuard:
    """Lets in who may call, and answers the others.

    Args:
        requests, websockets: what is behind it.
        under_way: how many requests of each key are, by its name; another guard may count with it.
    """

    def __init__(
        self,
        requests: AsgiApp,
        websockets: AsgiApp,
        server: ServerConfig,
        under_way: dict[str, int] | None = None,
    ) -> None:
        self._apps = {"http": requests, "websocket": websockets}
        config = server.access
        self._rules = BrowserRules(
            hosts=frozenset(filter(None, map(read_place, config.allowed_hosts))),
            origins=frozenset(config.allowed_origins),
            listen=frozenset(name_of(a.host) for a in server.listen) - _ALL_ADDRESSES,
        )
        self._has_keys = bool(config.api_keys)
        # The configuration was checked; but under the `hypercorn` command it does not listen.
        self._is_for_loopback = not (config.api_keys or config.allow_unauthenticated)
        self._host_of = lru_cache(_HOSTS_KEPT)(self._check_host)  # mostly there is only one
        self._ring = KeyRing(config.api_keys)
        self._has_page = server.page
        self._under_way = {} if under_way is None else under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"], scope[FIRST_KEY])
        request: RequestState = scope[REQUEST_KEY]
        request.cors = _NO_ORIGIN
        try:
            if scope["path"] not in _FREE_PATHS or not _is_bare_check(scope, headers):
                origin = self._check_page(scope, headers)
                if origin is not None:
                    request.cors = cors_headers(origin)
                    if _is_preflight(scope, headers):
                        network = headers.one(b"access-control-request-private-network").lower()
                        asked = headers.one(b"access-control-request-headers")
                        await _answer_preflight(preflight_headers(asked, network == "true"), send)
                        return
            key: ApiKey | None = None
            permissions = EVERYTHING
            if self._has_keys:
                key, permissions = await self._check_key(scope, headers)
            scope[PERMISSIONS_KEY] = permissions
            request.hold.client = permissions.client or _address_of(scope)
            if VIA in headers.first:
                request.hops = check_hops(v for n, v in headers.every if n == VIA)
            if key is not None:
                # The lease, and whatever else the request holds, is given back before its place.
                self._begin(key, request, scope["path"])
        except ApiError as error:
            log.debug("refused: %s %s", error.status, error.code)
            await refusal_in(scope, error).send(scope, send)
            return
        await self._apps[scope["type"]](scope, receive, send)

    def _check_page(self, scope: Scope, headers: _Headers) -> str | None:
        """The page's origin, as `cors_headers` takes it; None: no page asks."""
        server = scope.get("server")
        host = self._host_of(headers.raw(b"host"), server[0] if server else None)
        if b"origin" in headers.first:
            return self._rules.check_origin(headers.all(b"origin"), host)
        if b"sec-fetch-site" in headers.first:
            self._rules.check_fetch_site(headers.one(b"sec-fetch-site").lower(), host)
        return None

    def _check_host(self, hosts: Sequence[bytes], server: str | None) -> Place:
        if server is not None:
            server = server.removeprefix("::ffff:")
            if self._is_for_loopback and not is_loopback(server):
                message = (
                    "this gateway has no API keys, and other machines can reach this address; "
                    "set server.api_keys (`trio-gateway key` makes one), or "
                    "allow_unauthenticated = true"
                )
                raise ApiError(403, message, "permission_error", code="no_api_keys")
        return self._rules.check_host([*map(_text, hosts)], server)

    async def _check_key(
        self, scope: Scope, headers: _Headers
    ) -> tuple[ApiKey | None, Permissions]:
        """The request's key, if it has one, and what it may do."""
        if self._is_free(scope["path"], headers):
            return None, NOTHING
        given = headers.keys()
        key = await self._ring.find(given, _address_of(scope)) if given else None
        if key is None:
            raise _wrong_key() if given else _no_key()
        is_scraper = scope["path"] == METRICS_PATH and key.metrics
        is_front = scope["path"] == QUEUE_PATH and key.forwards
        if needs_admin(scope["path"]) and not (key.admin or is_scraper or is_front):
            message = (
                f'the API key "{key.name}" may not use this path: it needs an admin\'s key '
                "(admin = true in server.api_keys)"
            )
            if scope["path"] == METRICS_PATH:
                message = message.replace("admin = true", "admin = true or metrics = true")
            raise ApiError(403, message, "permission_error", code="admin_only")
        return key, Permissions(
            key.name, key.priority, key.models, key.admin, key.metrics,
            person_in(headers.first) if key.forwards else None,
        )  # fmt: skip

    def _is_free(self, path: str, headers: _Headers) -> bool:
        """Whether it needs no key: what watches the gateway should not have to know one, and the
        page, which holds no data, is what asks its user for it."""
        if path in _FREE_PATHS:
            return True
        is_page = is_of_page(path) or leads_to_page(path, headers.all(b"accept"))
        return self._has_page and is_page

    def _begin(self, key: ApiKey, request: RequestState, path: str) -> None:
        """Count a request of this key, until the request ends. To look on takes no place.

        Raises:
            ApiError: 429, the key has its maximum under way.
        """
        if key.max_parallel is None or _is_own_view(path) or path == QUEUE_PATH:
            return
        if self._under_way.get(key.name, 0) >= key.max_parallel:
            message = (
                f'the API key "{key.name}" may have {key.max_parallel} requests at a time; '
                "try again when one has ended"
            )
            raise ApiError(
                429, message, "rate_limit_error",
                code="too_many_requests", retry_after_s=_PARALLEL_RETRY_S,
            )  # fmt: skip
        self._under_way[key.name] = self._under_way.get(key.name, 0) + 1

        def release() -> None:
            self._under_way[key.name] -= 1

        request.stack.callback(release)


def _address_of(scope: Scope) -> str:
    return address_group((scope.get("client") or (None,))[0])


def _is_bare_check(scope: Scope, headers: _Headers) -> bool:
    """Whether it is a load balancer that asks for the health over HTTP/1.0, as HAProxy does. What
    a browser sends has a Host: that page is not one of a name that leads here."""
    if scope.get("http_version") != "1.0":
        return False
    return not (headers.all(b"host") or headers.all(b"origin") or headers.all(b"sec-fetch-site"))


def _is_preflight(scope: Scope, headers: _Headers) -> bool:
    options = scope["type"] == "http" and scope["method"] == "OPTIONS"
    return options and bool(headers.all(b"access-control-request-method"))


def _no_key() -> ApiError:
    return _not_authorized("an API key is needed: `Authorization: Bearer KEY`, or `x-api-key: KEY`")


def _wrong_key() -> ApiError:
    return _not_authorized("unknown API key; check the key that your client sends")


def _not_authorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers=[("WWW-Authenticate", "Bearer")])


async def _answer_preflight(headers: list[Header], send: Send) -> None:
    """A preflight has no body."""
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
