"""RemoteSites: the URLs of one remote model, and the way of each request through them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.config.site_schema import SiteOptions
from trio_gateway.engine.clients.remote_site import RemoteSite, tls_context
from trio_gateway.engine.sites.choice import in_order, least_loaded
from trio_gateway.engine.sites.latency import slowness
from trio_gateway.engine.sites.row import SiteRow
from trio_gateway.engine.sites.state import SiteState
from trio_gateway.engine.sites.sticky import Sticky

log = logging.getLogger(__name__)


class RemoteSites:
    """Requests, health checks and those who look on meet here. See `engine/sites` for what is
    decided.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    def __init__(self, base_url: str, options: EngineOptions, health: Sequence[str]) -> None:
        given = options.sites or [SiteOptions(url=url) for url in options.urls or (base_url,)]
        tls = tls_context(options) if any(s.url.startswith("https:") for s in given) else None
        self.spreads = options.spreads
        self.all = [RemoteSite(site.url, tls, options.connect_timeout_s, health) for site in given]
        self._states = {
            site: SiteState(about, options.health_interval_s)
            for site, about in zip(self.all, given, strict=True)
        }
        self._sticky = Sticky()
        self._choices = 0

    def __len__(self) -> int:
        return len(self.all)

    def state(self, site: RemoteSite) -> SiteState:
        return self._states[site]

    def rows(self, now: float, wall_s: float) -> tuple[SiteRow, ...]:
        """`wall_s`: `now` as Unix time."""
        return tuple(self.state(site).row(now, wall_s) for site in self.all)

    def choose(
        self, among: Sequence[RemoteSite], conversation: bytes | None, now: float
    ) -> tuple[RemoteSite, str]:
        """The one of these that a request should try, and why."""
        if len(among) == 1:
            return among[0], ""
        states = [self.state(site) for site in among]
        if not self.spreads:
            choice = in_order([state.view(now, 1.0) for state in states])
            return among[choice.site], choice.why
        slow = slowness([s.first_byte for s in states], [s.check for s in states], now)
        views = [state.view(now, factor) for state, factor in zip(states, slow, strict=True)]
        last = self._sticky.get(conversation)
        stays = None if last is None or self.all[last] not in among else self.all[last]
        choice = least_loaded(views, None if stays is None else among.index(stays))
        self._choices += 1
        states[choice.site].chosen = self._choices
        return among[choice.site], choice.why

    def note_answered(self, conversation: bytes | None, site: RemoteSite) -> None:
        if self.spreads:
            self._sticky.note(conversation, self.all.index(site))


class Tour:
    """The sites that one request tries, one after the other: each is chosen when it is its turn,
    and counts the request until the next one, or `end`.

    `why`: the last choice's.
    """

    def __init__(self, sites: RemoteSites, conversation: bytes | None = None) -> None:
        self._sites, self._conversation = sites, conversation
        self._left = [*sites.all]
        self._at: RemoteSite | None = None
        self._is_trial = False
        self.why = ""

    def __iter__(self) -> Tour:
        return self

    def __next__(self) -> RemoteSite:
        self.end()
        if not self._left:
            raise StopIteration
        now = trio.current_time()
        site, self.why = self._sites.choose(self._left, self._conversation, now)
        if self.why:
            log.debug("a request goes to %s", self.why)
        self._left.remove(site)
        state = self._sites.state(site)
        self._at, self._is_trial = site, state.circuit.begin(now)
        state.ours += 1
        return site

    def end(self) -> None:
        """It is over there, or goes on to the next one."""
        if (site := self._at) is not None:
            self._at, state = None, self._sites.state(site)
            state.ours -= 1
            if self._is_trial:
                state.circuit.end_trial()

    def note_good(self, site: RemoteSite) -> None:
        """It has answered."""
        self._sites.state(site).note_good(trio.current_time(), of_request=True)
        self._sites.note_answered(self._conversation, site)

    def note_bad(self, site: RemoteSite, why: str) -> None:
        """It has not, or others should be asked first for a while."""
        self._sites.state(site).note_bad(trio.current_time(), why, of_request=True)

    def note_first_byte(self, site: RemoteSite, seconds: float) -> None:
        """Of a stream."""
        self._sites.state(site).first_byte.note(seconds, trio.current_time())
