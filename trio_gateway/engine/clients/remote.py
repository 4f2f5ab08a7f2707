"""RemoteEngine: an engine that somebody else runs, at one URL or at several."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import NO_OPTIONS
from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.clients.openai import NOT_THERE, OpenAIEngine, OpenAIKind
from trio_gateway.engine.clients.remote_site import RemoteSite
from trio_gateway.engine.errors import EngineLost, EngineUnreachable, OutOfSockets
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header, Stream, open_exchange
from trio_gateway.engine.http.socket import SocketPlace
from trio_gateway.engine.http.whole_answer import whole_up_to

log = logging.getLogger(__name__)

# An answer that another site might do better. Without another it is passed on as it is.
ANOTHER_MAY_DO = frozenset({429, 502, 503, 504})
# A site that works waits so long for one that is configured before it.
FIRST_LOOK_S = 0.25
# Of the answer's headers, those that speak of the other server.
_NOT_PASSED_ON = frozenset(
    {b"set-cookie", b"alt-svc", b"strict-transport-security", b"www-authenticate", b"via"}
)


class RemoteKind(OpenAIKind):
    """See EngineKind. Nothing is launched."""

    endpoints = OpenAIKind.endpoints | {
        "messages", "messages/count_tokens", "chat/completions/input_tokens",
    }  # fmt: skip

    def client(self, base_url: str, options: EngineOptions) -> RemoteEngine:
        return RemoteEngine(base_url, options)


class RemoteEngine(OpenAIEngine):
    """See EngineClient. A request goes to the first URL that works, and to the next if that breaks
    before the first byte of its answer was passed on.

    It is never given up: what does not answer now is asked again with the next request.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        urls = options.urls or (base_url,)
        tls = _tls_context(options) if any(u.startswith("https:") for u in urls) else None
        self.sites = [
            RemoteSite(url, tls, options.connect_timeout_s, self._health_targets) for url in urls
        ]
        self._checked_at: float | None = None
        for site in self.sites:
            is_open = site.url.startswith("http:") and not _is_loopback(site.host)
            if options.api_key is not None and is_open:
                log.warning("%s: its api_key goes there unencrypted", site.url)

    # -- whether it is there ---------------------------------------------------------------------

    async def check_health(self, timeout_s: float) -> Health:
        """Look at all sites at once, every `health_interval`. The answer is always good: that no
        site works now is no reason to give up the engine, which is not ours.

        The first time it returns once it is known who the first is that works, and soon after any
        works: nobody waits for a host that does not answer.
        """
        now = trio.current_time()
        if self._checked_at is not None and now < self._checked_at + self._interval_s:
            return Health(True, "checked a moment ago")
        first, self._checked_at = self._checked_at is None, now
        async with trio.open_nursery() as nursery:

            async def check(site: RemoteSite) -> None:
                await self._check(site, timeout_s)
                if first and (limit := self._first_look_ends()) is not None:
                    nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, limit)

            for site in self.sites:
                nursery.start_soon(check, site)
        working = sum(site.works is True for site in self.sites)
        return Health(True, f"{working} of {len(self.sites)} URLs work")

    def _first_look_ends(self) -> float | None:
        """When enough is known; None: not yet."""
        found = [site.works for site in self.sites]
        if True not in found:
            return None
        undecided = None in found[: found.index(True)]
        return trio.current_time() + (FIRST_LOOK_S if undecided else 0.0)

    @property
    def _interval_s(self) -> float:
        return self.options.health_interval_s

    async def _check(self, site: RemoteSite, timeout_s: float) -> None:
        try:
            with trio.fail_after(timeout_s):
                status = await self._status_at(site, site.health_targets[0])
                if status in NOT_THERE and len(site.health_targets) > 1:
                    del site.health_targets[0]
                    status = await self._status_at(site, site.health_targets[0])
            # Any other answer is one: whether a request is good, the request will show.
            works = status < 500 or status in NOT_THERE
            site.note(works=works, why=f"HTTP {status} at {site.health_targets[0]}")
        except trio.TooSlowError:
            site.note(works=False, why=f"no answer within {timeout_s:g} s")
        except OutOfSockets:
            pass  # says nothing of the site
        except EngineLost as error:
            site.note(works=False, why=str(error))

    async def _status_at(self, site: RemoteSite, target: str) -> int:
        opened: list[Exchange] = []
        try:
            return (await self._open_at(site, opened, "GET", target, (), b"")).status
        finally:
            self._end(opened)

    # -- requests --------------------------------------------------------------------------------

    def transform_response(self, headers: Sequence[Header]) -> list[Header]:
        return [
            (name, value)
            for name, value in super().transform_response(headers)
            if name not in _NOT_PASSED_ON
        ]

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AsyncIterator[Exchange]:
        """As in EngineClient; the sites are tried in turn. No refusal is counted."""
        opened: list[Exchange] = []
        try:
            yield await self._begin(opened, method, target, headers, body)
        finally:
            self._end(opened)

    async def _begin(
        self,
        opened: list[Exchange],
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> Exchange:
        """The first answer that is one: its first bytes are here.

        Raises:
            EngineUnreachable: no site gave one; the message names them all.
        """
        tried: list[str] = []
        second_best: Exchange | None = None
        for site in sorted(self.sites, key=_preference):
            if isinstance(body, BodySource) and body.is_begun:
                if not body.can_repeat:
                    tried.append("what was sent of the upload is not kept for another")
                    break
                body.rewind()
            try:
                exchange = await self._open_at(site, opened, method, target, headers, body)
                if exchange.status == 401:
                    tried.append(f"{site.url}: {_refused_key(self.options)}")
                    continue
                if exchange.status in ANOTHER_MAY_DO and len(self.sites) > 1:
                    self._note_busy(site, exchange.status)
                    second_best = second_best or exchange
                    continue
            except OutOfSockets:
                raise
            except EngineLost as error:
                if self._over is not None:
                    raise
                site.note(works=False, why=str(error))
                tried.append(f"{site.url}: {error}")
                continue
            site.note(works=True)
            return exchange
        if second_best is not None:
            return second_best
        raise EngineUnreachable("no URL of it works; " + "; ".join(tried))

    async def _connect_socket(
        self, target: str, headers: Sequence[Header]
    ) -> tuple[Stream, SocketPlace]:
        """To the first site that takes it."""
        tried: list[str] = []
        for site in sorted(self.sites, key=_preference):
            try:
                stream = await site.connect()
            except OutOfSockets:
                raise
            except EngineUnreachable as error:
                site.note(works=False, why=str(error))
                tried.append(f"{site.url}: {error}")
                continue
            host, own = site.authority.decode(), self.with_own_headers(headers)
            return stream, SocketPlace(host, site.target(target), own)
        raise EngineUnreachable("no URL of it works; " + "; ".join(tried))

    @staticmethod
    def _note_busy(site: RemoteSite, status: int) -> None:
        if status != 429:  # that is about the caller, not about the site
            site.note(works=False, why=f"HTTP {status}")

    async def _open_at(
        self,
        site: RemoteSite,
        opened: list[Exchange],
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> Exchange:
        """One site's answer, of which something is here already."""
        limit_s = self.options.first_byte_timeout_s
        own = [(b"Host", site.authority), *self.with_own_headers(headers)]
        try:
            with trio.fail_after(limit_s):
                exchange = await open_exchange(
                    site.host, site.port, method, site.target(target), own, body,
                    on_open=partial(self._keep, opened), connect=site.connect,
                )  # fmt: skip
                await exchange.prefetch(whole_up_to(exchange.status, exchange.headers))
                return exchange
        except trio.TooSlowError:
            limit = f"{limit_s:g} s (first_byte_timeout)"
            raise EngineUnreachable(f"no answer within {limit}") from None


def _preference(site: RemoteSite) -> int:
    """Those that work first, then those that nobody tried; else as configured."""
    return (True, None, False).index(site.works)


def _refused_key(options: EngineOptions) -> str:
    if options.api_key is None:
        return "it wants a key (HTTP 401); set `api_key`"
    return "it refuses the gateway's key (HTTP 401); check `api_key`"


def _tls_context(options: EngineOptions) -> ssl.SSLContext:
    """Raises OSError: `ca_file` cannot be read, or has no certificate."""
    context = ssl.create_default_context(
        cafile=None if options.ca_file is None else str(options.ca_file)
    )
    if not options.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
