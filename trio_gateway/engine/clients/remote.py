"""RemoteEngine: an engine that somebody else runs, at one URL or at several."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import NO_OPTIONS, NOT_THERE
from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.clients.headers import AFFINITY, is_loopback
from trio_gateway.engine.clients.hops import with_this_run
from trio_gateway.engine.clients.openai import OpenAIEngine, OpenAIKind
from trio_gateway.engine.clients.remote_site import RemoteSite
from trio_gateway.engine.clients.remote_sites import RemoteSites, Tour
from trio_gateway.engine.clients.site_watch import SiteWatch
from trio_gateway.engine.clients.sleep import Sleep
from trio_gateway.engine.errors import (
    KEY_REFUSED,
    EngineLost,
    EngineSilent,
    EngineUnreachable,
    KeyRefused,
    OutOfSockets,
)
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.control import Answer, ControlClient
from trio_gateway.engine.http.exchange import Exchange, Header
from trio_gateway.engine.http.socket import EngineSocket, HandshakeRefused
from trio_gateway.engine.http.whole_answer import whole_up_to
from trio_gateway.engine.sites.row import SiteRow

log = logging.getLogger(__name__)

_Answered = TypeVar("_Answered", Exchange, Answer)

# An answer that another site might do better. Without another it is passed on as it is.
ANOTHER_MAY_DO = frozenset({429, 502, 503, 504})
_REDIRECTS = frozenset({300, 301, 302, 303, 305, 306, 307, 308})
CONNECTED_S = 1.0  # of a health check, for the answer, once connected
# Of the answer's headers, what clients read. By others a server that is not ours could steer a
# proxy or a browser in the gateway's name (`Location`, `Refresh`, `X-Accel-Redirect`, …).
_PASSED_ON = frozenset(
    {
        b"content-type", b"content-length", b"content-encoding", b"content-language",
        b"content-range", b"accept-ranges", b"etag", b"last-modified", b"retry-after",
        b"retry-after-ms", b"x-should-retry", b"x-request-id", b"request-id", b"x-correlation-id",
    }
)  # fmt: skip
_PASSED_ON_PREFIXES = (b"openai-", b"anthropic-", b"x-ratelimit-", b"ratelimit")


class RemoteKind(OpenAIKind):
    """See EngineKind. Nothing is launched."""

    endpoints = OpenAIKind.endpoints | {
        "messages", "messages/count_tokens", "chat/completions/input_tokens",
        "responses/input_tokens",
    }  # fmt: skip

    def client(self, base_url: str, options: EngineOptions) -> RemoteEngine:
        return RemoteEngine(base_url, options)


class RemoteEngine(OpenAIEngine):
    """See EngineClient. A request goes to the URL that `engine/sites` chooses, and to the next if
    that breaks before the first byte of its answer was passed on.

    It is never given up: what does not answer now is asked again with the next request. Unless its
    machine can be woken: that is done at the start of the next engine.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    is_remote = True

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        self._is_here = False  # at a loopback address there may be a proxy to anywhere
        self.sites = RemoteSites(base_url, options, self._health_targets)
        self._controls = {
            site: ControlClient(site, self._questions, self.with_own_headers(()))
            for site in self.sites.all
        }
        self._watch = SiteWatch(
            self.sites,
            self._controls,
            options.health_interval_s,
            asks_peers=options.gateway and options.spreads,
        )
        if options.ways_to_wake:
            self.sleep = Sleep()
        self.routes_by_affinity = options.gateway or options.spreads
        for site in self.sites.all:
            is_open = site.url.startswith("http:") and not is_loopback(site.host)
            if options.api_key is not None and is_open:
                log.warning("%s: its api_key goes there unencrypted", site.url)

    # -- whether it is there ---------------------------------------------------------------------

    async def check_health(self, timeout_s: float) -> Health:
        """Look at the sites, every `health_interval`. The answer is always good: that no site works
        now is no reason to give up the engine, which is not ours.

        Where its machine can be woken, it is bad until a site works; and nothing is asked while no
        request is under way, so that the machine may sleep.
        """
        self.idle.drop_old()
        if (sleep := self.sleep) is None:
            return Health(True, await self._watch.look(timeout_s))
        if sleep.awake.is_set() and not len(self.connections):
            return Health(True, "not asked, so that it may sleep")
        # That nothing can be reached has to show as that.
        timeout_s = max(timeout_s, self.options.connect_timeout_s + CONNECTED_S)
        said = await self._watch.look(timeout_s, is_waking=not sleep.awake.is_set())
        works = any(self.sites.state(site).works for site in self.sites.all)
        return sleep.looked(Health(True, said), self._found, works=works)

    @property
    def _found(self) -> dict[str, EngineLost | None]:
        return {site.url: site.lost for site in self.sites.all}

    def site_rows(self, now: float, wall_s: float) -> tuple[SiteRow, ...]:
        return self.sites.rows(now, wall_s)

    async def ask(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer | None:
        """As in EngineClient; the sites are asked in turn."""
        tour = Tour(self.sites)

        async def attempt(site: RemoteSite) -> Answer:
            limit_s = self.options.first_byte_timeout_s
            return await self._controls[site].request(method, site.target(target), limit_s, body)

        try:
            with trio.fail_after(timeout_s):
                answer = await self._first_answer(tour, attempt, body)
        except (trio.TooSlowError, EngineLost) as error:
            log.debug("%s %s: %r", method, target, error)
            return None
        finally:
            tour.end()
        self._note_key_refused(answer)
        return answer

    # -- requests --------------------------------------------------------------------------------

    def with_own_headers(self, headers: Sequence[Header]) -> Sequence[Header]:
        return with_this_run(super().with_own_headers(headers))

    def transform_response(self, headers: Sequence[Header]) -> list[Header]:
        return [
            (name, value)
            for name, value in headers
            if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
        ]

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AsyncIterator[Exchange]:
        """As in EngineClient; the sites are tried in turn. No refusal is counted."""
        conversation = next((value for name, value in headers if name == AFFINITY), None)
        if not self.options.gateway:
            headers = [header for header in headers if header[0] != AFFINITY]
        own = self.with_own_headers(headers)
        limit_s = self.options.first_byte_timeout_s
        tour, begun = Tour(self.sites, conversation), list[Exchange]()

        async def attempt(site: RemoteSite) -> Exchange:
            """One site's answer, of which something is here already."""
            began_at = trio.current_time()
            try:
                with trio.fail_after(limit_s):
                    exchange = await self.connections.begin(
                        site, method, site.target(target), own, body
                    )
                    begun.append(exchange)
                    up_to = whole_up_to(exchange.status, exchange.headers)
                    await exchange.prefetch(up_to)
                    if not up_to:  # what is whole tells how long it is, not how fast
                        tour.note_first_byte(site, trio.current_time() - began_at)
                    return exchange
            except trio.TooSlowError:
                reason = f"no answer within {limit_s:g} s (first_byte_timeout)"
                raise EngineSilent(reason) from None

        try:
            answer = await self._first_answer(tour, attempt, body)
            answer.why_there = tour.why
            yield answer
        finally:
            tour.end()
            for exchange in begun:
                self.connections.finish(exchange)

    async def _first_answer(
        self,
        tour: Tour,
        attempt: Callable[[RemoteSite], Awaitable[_Answered]],
        body: bytes | BodySource,
    ) -> _Answered:
        """The first answer of a site that is one.

        Raises:
            EngineUnreachable: no site gave one; the message names them all.
            KeyRefused: as above, and one or more of them refused the key.
        """
        tried: list[str] = []
        second_best: _Answered | None = None
        refused: _Answered | None = None
        for site in tour:
            if isinstance(body, BodySource) and body.is_begun:
                if not body.can_repeat:
                    tried.append("the part of the upload that was sent is no longer available")
                    break
                body.rewind()
            try:
                answer = await attempt(site)
                site.lost = None
                if answer.status in _REDIRECTS:
                    why = f"it sends clients elsewhere (HTTP {answer.status}); correct `urls`"
                    tour.note_bad(site, why)
                    tried.append(f"{site.url}: {why}")
                    continue
                if answer.status in KEY_REFUSED:
                    why = _refused_key(self.options, answer.status)
                    if answer.status == 401:  # 403 may be about this very request
                        tour.note_bad(site, why)
                    tried.append(f"{site.url}: {why}")
                    refused = refused or answer
                    continue
                if answer.status in ANOTHER_MAY_DO and len(self.sites) > 1:
                    # 429 is about the caller, and no reason to change the order of the sites. Those
                    # that are all alike must not send everything to the one that refuses fastest.
                    if answer.status != 429 or self.sites.spreads:
                        tour.note_bad(site, f"HTTP {answer.status}")
                    second_best = second_best or answer
                    continue
            except OutOfSockets:
                raise
            except EngineLost as error:
                if self.connections.is_over:
                    raise
                site.lost = error
                tour.note_bad(site, str(error))
                tried.append(f"{site.url}: {error}")
                continue
            fails = answer.status >= 500 and answer.status not in NOT_THERE
            if fails and self.sites.spreads:
                tour.note_bad(site, f"HTTP {answer.status}")  # as above
            else:
                tour.note_good(site)
            return answer
        if second_best is not None:
            return second_best
        if refused is not None and (len(tried) == 1 or isinstance(refused, Answer)):
            return refused  # with what the server says about it
        if refused is not None:
            raise KeyRefused("none of its URLs works: " + "; ".join(tried))
        raise self._none_works(tried)

    def _none_works(self, tried: Sequence[str]) -> EngineUnreachable:
        if self.sleep is not None:
            self.sleep.request_failed(self._found, is_answering=self.connections.is_answering)
        return EngineUnreachable("none of its URLs works: " + "; ".join(tried))

    @asynccontextmanager
    async def open_socket(
        self,
        target: str,
        subprotocols: Sequence[str],
        headers: Sequence[Header],
        max_message_bytes: int,
    ) -> AsyncIterator[EngineSocket]:
        """As in EngineClient, at the first site that takes the connection."""
        own = self.with_own_headers(headers)
        tried: list[str] = []
        refused: HandshakeRefused | None = None
        tour = Tour(self.sites)
        async with AsyncExitStack() as stack:
            stack.callback(tour.end)
            for site in tour:
                opening = self.connections.open_socket(
                    site, site.target(target), subprotocols, own, max_message_bytes
                )
                try:
                    socket = await stack.enter_async_context(opening)
                except OutOfSockets:
                    raise
                except EngineUnreachable as error:
                    site.lost = error
                    tour.note_bad(site, str(error))
                    tried.append(f"{site.url}: {error}")
                    continue
                except HandshakeRefused as refusal:
                    if refusal.status not in KEY_REFUSED:
                        raise
                    tried.append(f"{site.url}: {_refused_key(self.options, refusal.status)}")
                    refused = refused or refusal
                    continue
                tour.note_good(site)
                yield socket
                return
        if refused is not None:
            raise refused
        raise self._none_works(tried)


def _refused_key(options: EngineOptions, status: int) -> str:
    if options.api_key is None:
        return f"it wants a key (HTTP {status}); set `api_key`"
    return f"it refuses the gateway's key (HTTP {status}); check `api_key`"
