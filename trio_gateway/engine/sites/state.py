"""SiteState: all that is known of one site. Pure: `now` is an argument."""

from __future__ import annotations

import logging

from trio_gateway.config.site_schema import SiteOptions
from trio_gateway.engine.sites.choice import SiteView
from trio_gateway.engine.sites.circuit import Circuit, CircuitState
from trio_gateway.engine.sites.latency import Smoothed
from trio_gateway.engine.sites.peer_load import PeerLoad
from trio_gateway.engine.sites.row import SiteRow

log = logging.getLogger(__name__)


class SiteState:
    """`ours`: requests of ours that it has. `first_byte`: the times of its streams' first bytes;
    `check`: of its answers to health checks. `peer`: what it says of its own load, if it is a
    gateway and says so. `chosen`: the number of the last choice that fell on it."""

    def __init__(self, options: SiteOptions, check_every_s: float) -> None:
        self.url = options.url
        self.name = options.url.partition("://")[2].removesuffix("/v1")
        self.weight = 1.0 if options.weight is None else options.weight
        self.circuit = Circuit(check_every_s)
        self.ours = self.chosen = 0
        self.first_byte, self.check = Smoothed(), Smoothed()
        self.peer: PeerLoad | None = None

    def __repr__(self) -> str:
        return f"<SiteState {self.url} works={self.works} ours={self.ours}>"

    @property
    def works(self) -> bool | None:
        """None: it has not been tried."""
        return self.circuit.works

    def note_good(self, now: float, *, of_request: bool) -> None:
        had_failed = self.works is False
        if self.circuit.note_good(now, of_request=of_request) and had_failed:
            log.info("%s works again", self.url)

    def note_bad(self, now: float, why: str, *, of_request: bool) -> None:
        had_failed = self.works is False
        if self.circuit.note_bad(now, why, of_request=of_request):
            level = logging.INFO if had_failed else logging.WARNING
            still = "still " if had_failed else ""
            pause_s = self.circuit.retry_at - now
            log.log(
                level, "%s %sdoes not work: %s (tried again in %.3g s)",
                self.url, still, why, pause_s,
            )  # fmt: skip

    def view(self, now: float, slowness: float) -> SiteView:
        return SiteView(
            name=self.name,
            use=self.circuit.use(now),
            ours=self.ours,
            others=None if self.peer is None else self.peer.others,
            weight=self.weight,
            slowness=slowness,
            chosen=self.chosen,
        )

    def row(self, now: float, wall_s: float) -> SiteRow:
        """`wall_s`: `now` as Unix time."""

        def unix(moment: float | None) -> float | None:
            return None if moment is None else round(wall_s + moment - now, 2)

        state = self.circuit.state(now)
        is_left_alone = state is CircuitState.OPEN
        return SiteRow(
            url=self.url,
            state=state.value,
            since_s=unix(self.circuit.since),
            reason=self.circuit.why,
            retry_at_s=unix(self.circuit.retry_at) if is_left_alone else None,
            requests=self.ours,
            weight=self.weight,
            first_byte_s=_rounded(self.first_byte.value),
            check_s=_rounded(self.check.value),
            peer_waiting=None if self.peer is None else self.peer.waiting,
            peer_running=None if self.peer is None else self.peer.running,
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
