"""RemoteEngine: an engine that somebody else runs, at one URL or at several."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import NO_OPTIONS, NOT_THERE, ask_health
from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.clients.headers import is_loopback
from trio_gateway.engine.clients.hops import with_this_run
from trio_gateway.engine.clients.openai import OpenAIEngine, OpenAIKind
from trio_gateway.engine.clients.remote_site import RemoteSite
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

log = logging.getLogger(__name__)

_Answered = TypeVar("_Answered", Exchange, Answer)

# An answer that another site might do better. Without another it is passed on as it is.
ANOTHER_MAY_DO = frozenset({429, 502, 503, 504})
_REDIRECTS = frozenset({300, 301, 302, 303, 305, 306, 307, 308})
# How long a site that works waits for one that is configured before it.
FIRST_LOOK_S = 0.25
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
    """See EngineClient. A request goes to the first URL that works, and to the next if that breaks
    before the first byte of its answer was passed on.

    It is never given up: what does not answer now is asked again with the next request.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    is_remote = True

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        self._is_here = False  # at a loopback address there may be a proxy to anywhere
        urls = options.urls or (base_url,)
        tls = tls_context(options) if any(u.startswith("https:") for u in urls) else None
        self.sites = [
            RemoteSite(url, tls, options.connect_timeout_s, self._health_targets) for url in urls
        ]
        self._controls = {
            site: ControlClient(site, self._questions, self.with_own_headers(()))
            for site in self.sites
        }
        self._checked_at: float | None = None
        for site in self.sites:
            is_open = site.url.startswith("http:") and not is_loopback(site.host)
            if options.api_key is not None and is_open:
                log.warning("%s: its api_key goes there unencrypted", site.url)

    # -- whether it is there ---------------------------------------------------------------------

    async def check_health(self, timeout_s: float) -> Health:
        """Look at all sites at once, every `health_interval`. The answer is always good: that no
        site works now is no reason to give up the engine, which is not ours.

        The first time it returns once it is known who the first is that works, and soon after any
        works: a host that does not answer keeps no request waiting.
        """
        self.idle.drop_old()
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
            answer, target = await ask_health(self._controls[site], site.health_targets, timeout_s)
        except OutOfSockets:
            pass  # says nothing of the site
        except EngineLost as error:
            site.note(works=False, why=str(error))
        else:
            # Any other answer will do: a request will show whether it takes requests.
            works = answer.status < 500 or answer.status in NOT_THERE
            site.note(works=works, why=f"HTTP {answer.status} at {target}")

    async def ask(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer | None:
        """As in EngineClient; the sites are asked in turn."""

        async def attempt(site: RemoteSite) -> Answer:
            limit_s = self.options.first_byte_timeout_s
            return await self._controls[site].request(method, site.target(target), limit_s, body)

        try:
            with trio.fail_after(timeout_s):
                answer = await self._first_answer(attempt, body)
        except (trio.TooSlowError, EngineLost) as error:
            log.debug("%s %s: %r", method, target, error)
            return None
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
        own = self.with_own_headers(headers)
        limit_s = self.options.first_byte_timeout_s
        begun: list[Exchange] = []

        async def attempt(site: RemoteSite) -> Exchange:
            """One site's answer, of which something is here already."""
            try:
                with trio.fail_after(limit_s):
                    exchange = await self.connections.begin(
                        site, method, site.target(target), own, body
                    )
                    begun.append(exchange)
                    await exchange.prefetch(whole_up_to(exchange.status, exchange.headers))
                    return exchange
            except trio.TooSlowError:
                reason = f"no answer within {limit_s:g} s (first_byte_timeout)"
                raise EngineSilent(reason) from None

        try:
            yield await self._first_answer(attempt, body)
        finally:
            for exchange in begun:
                self.connections.finish(exchange)

    async def _first_answer(
        self, attempt: Callable[[RemoteSite], Awaitable[_Answered]], body: bytes | BodySource
    ) -> _Answered:
        """The first answer of a site that is one.

        Raises:
            EngineUnreachable: no site gave one; the message names them all.
            KeyRefused: as above, and one or more of them refused the key.
        """
        tried: list[str] = []
        second_best: _Answered | None = None
        refused: _Answered | None = None
        for site in sorted(self.sites, key=_preference):
            if isinstance(body, BodySource) and body.is_begun:
                if not body.can_repeat:
                    tried.append("the part of the upload that was sent is no longer available")
                    break
                body.rewind()
            try:
                answer = await attempt(site)
                if answer.status in _REDIRECTS:
                    why = f"it sends clients elsewhere (HTTP {answer.status}); correct `urls`"
                    tried.append(f"{site.url}: {why}")
                    continue
                if answer.status in KEY_REFUSED:
                    tried.append(f"{site.url}: {_refused_key(self.options, answer.status)}")
                    refused = refused or answer
                    continue
                if answer.status in ANOTHER_MAY_DO and len(self.sites) > 1:
                    self._note_busy(site, answer.status)
                    second_best = second_best or answer
                    continue
            except OutOfSockets:
                raise
            except EngineLost as error:
                if self.connections.is_over:
                    raise
                site.note(works=False, why=str(error))
                tried.append(f"{site.url}: {error}")
                continue
            site.note(works=True)
            return answer
        if second_best is not None:
            return second_best
        if refused is not None and (len(tried) == 1 or isinstance(refused, Answer)):
            return refused  # with what the server says about it
        if refused is not None:
            raise KeyRefused("none of its URLs works: " + "; ".join(tried))
        raise EngineUnreachable("none of its URLs works: " + "; ".join(tried))

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
        async with AsyncExitStack() as stack:
            for site in sorted(self.sites, key=_preference):
                opening = self.connections.open_socket(
                    site, site.target(target), subprotocols, own, max_message_bytes
                )
                try:
                    socket = await stack.enter_async_context(opening)
                except OutOfSockets:
                    raise
                except EngineUnreachable as error:
                    site.note(works=False, why=str(error))
                    tried.append(f"{site.url}: {error}")
                    continue
                except HandshakeRefused as refusal:
                    if refusal.status not in KEY_REFUSED:
                        raise
                    tried.append(f"{site.url}: {_refused_key(self.options, refusal.status)}")
                    refused = refused or refusal
                    continue
                yield socket
                return
        if refused is not None:
            raise refused
        raise EngineUnreachable("none of its URLs works: " + "; ".join(tried))

    @staticmethod
    def _note_busy(site: RemoteSite, status: int) -> None:
        if status != 429:  # that is about the caller, not about the site
            site.note(works=False, why=f"HTTP {status}")


def _preference(site: RemoteSite) -> int:
    """Those that work first, then those that have not been tried; otherwise as configured."""
    return (True, None, False).index(site.works)


def _refused_key(options: EngineOptions, status: int) -> str:
    if options.api_key is None:
        return f"it wants a key (HTTP {status}); set `api_key`"
    return f"it refuses the gateway's key (HTTP {status}); check `api_key`"


def tls_context(options: EngineOptions) -> ssl.SSLContext:
    """Raises OSError: `ca_file` cannot be read, or has no certificate."""
    context = ssl.create_default_context(
        cafile=None if options.ca_file is None else str(options.ca_file)
    )
    if not options.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
