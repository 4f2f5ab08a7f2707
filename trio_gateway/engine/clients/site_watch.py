"""SiteWatch: looks at the health of all sites, and asks other gateways what they have to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from trio_gateway.engine.clients.client import NOT_THERE, ask_health
from trio_gateway.engine.clients.remote_site import RemoteSite
from trio_gateway.engine.clients.remote_sites import RemoteSites
from trio_gateway.engine.errors import KEY_REFUSED, EngineLost, OutOfSockets
from trio_gateway.engine.http.control import ControlClient
from trio_gateway.engine.sites.peer_load import PATH, peer_load

log = logging.getLogger(__name__)

# How long a site that works waits for one that is configured before it.
FIRST_LOOK_S = 0.25


class SiteWatch:
    """`asks_peers`: what they have to do decides where requests go."""

    def __init__(
        self,
        sites: RemoteSites,
        controls: Mapping[RemoteSite, ControlClient],
        every_s: float,
        *,
        asks_peers: bool,
    ) -> None:
        self._sites, self._controls = sites, controls
        self._every_s, self._asks_peers = every_s, asks_peers
        self._looked_at: float | None = None
        self._warned: set[RemoteSite] = set()  # of those that do not say what they have to do

    async def look(self, timeout_s: float, *, is_waking: bool = False) -> str:
        """Ask all sites at once, if it is time for that; before it, those only that are half-open.
        What was found, in words.

        The first time it returns once it is known who the first is that works, and soon after any
        works: a host that does not answer keeps no request waiting. So it is while a machine is
        waking: then all are asked, and that they do not answer yet is no failure.
        """
        now, first = trio.current_time(), self._looked_at is None or is_waking
        circuits = {site: self._sites.state(site).circuit for site in self._sites.all}
        if is_waking:
            due = [*circuits]
        elif self._looked_at is None or now >= self._looked_at + self._every_s:
            self._looked_at = now
            due = [site for site, circuit in circuits.items() if circuit.may_check(now)]
        else:
            due = [site for site, circuit in circuits.items() if circuit.awaits_check(now)]
        async with trio.open_nursery() as nursery:

            async def check(site: RemoteSite) -> None:
                is_good = await self._check(site, timeout_s, counts=not is_waking)
                if first and (limit := self._first_look_ends()) is not None:
                    nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, limit)
                if is_good and self._asks_peers:
                    await self._ask_peer(site, timeout_s)

            for site in due:
                nursery.start_soon(check, site)
        working = sum(circuit.works is True for circuit in circuits.values())
        return f"{working} of {len(circuits)} URLs work"

    def _first_look_ends(self) -> float | None:
        """When enough is known; None: not yet."""
        found = [self._sites.state(site).works for site in self._sites.all]
        if True not in found:
            return None
        undecided = None in (found if self._sites.spreads else found[: found.index(True)])
        has_more = undecided or self._asks_peers
        return trio.current_time() + (FIRST_LOOK_S if has_more else 0.0)

    async def _check(self, site: RemoteSite, timeout_s: float, *, counts: bool) -> bool:
        """Whether its answer is good. `counts`: as a failure, if it is one."""
        control, state, asked_at = (
            self._controls[site],
            self._sites.state(site),
            trio.current_time(),
        )
        try:
            answer, target = await ask_health(control, site.health_targets, timeout_s)
        except OutOfSockets:
            return False  # says nothing of the site
        except EngineLost as error:
            site.lost = error
            if counts:
                state.note_bad(trio.current_time(), str(error), of_request=False)
            return False
        site.lost = None
        now = trio.current_time()
        # Any other answer will do: a request will show whether it takes requests.
        if answer.status < 500 or answer.status in NOT_THERE:
            state.check.note(now - asked_at, now)
            state.note_good(now, of_request=False)
            return True
        if counts:
            why = f"HTTP {answer.status} at {target}"
            state.note_bad(now, why, of_request=False)
        return False

    async def _ask_peer(self, site: RemoteSite, timeout_s: float) -> None:
        """Without an answer, or a right to it, nothing is known."""
        state = self._sites.state(site)
        try:
            answer = await self._controls[site].request("GET", site.target(PATH), timeout_s)
        except EngineLost:
            state.peer = None
        else:
            state.peer = peer_load(answer.body, state.ours) if answer.status == 200 else None
            if answer.status in KEY_REFUSED and site not in self._warned:
                self._warned.add(site)
                log.warning(
                    "%s does not say what it has to do (HTTP %d): `api_key` needs "
                    "forwards = true there",
                    site.url, answer.status,
                )  # fmt: skip
