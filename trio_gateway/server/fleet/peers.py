"""Peers: asks other gateways what they have, again and again, and has it offered here."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from trio_gateway.config.schema import GatewayConfig, PeerConfig
from trio_gateway.config.site_schema import SiteOptions
from trio_gateway.engine.errors import KEY_REFUSED
from trio_gateway.engine.http.control import Answer
from trio_gateway.engine.scheduling.model_load import ModelLoad
from trio_gateway.server.fleet.composition import with_peers
from trio_gateway.server.fleet.listing import TARGET, ListedModel, furthest, read_listing
from trio_gateway.tasks import beside
from trio_gateway.wall_clock import WallClock

if TYPE_CHECKING:
    from trio_gateway.engine.clients.remote import RemoteEngine

log = logging.getLogger(__name__)

FIRST_LOOK_S = 1.0  # a start waits so long for what they have
LOOK_S = 10.0
AGAIN_S = 1.0  # after a look without an answer; then twice as long each time

_BUSY = frozenset({429, 503})

States = Callable[[Mapping[str, ModelLoad]], None]


class PeerRow(msgspec.Struct, frozen=True):
    """One URL of an entry. `fault`: why it does not say what it has; None: it does, or has not been
    asked yet. `models`: those that are offered here. `asked_s`: Unix time of the last answer, or of
    the last try without one; None: there was none yet."""

    name: str
    url: str
    fault: str | None
    models: tuple[str, ...]
    asked_s: float | None


class Peers:
    """The entries of a configuration that stand for other gateways. One that does not answer keeps
    the models that it had.

    Args:
        tell_states: is told what of their models is in memory there, by name.

    `take_over`: has what they list taken over; set it before `run`.
    """

    def __init__(self, config: GatewayConfig, tell_states: States) -> None:
        self._peers = config.peers
        self._tell_states = tell_states
        self.take_over: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._listings: dict[str, dict[str, tuple[ListedModel, ...]]] = {}
        self._faults: dict[tuple[str, str], str] = {}  # by entry and URL; of those that say nothing
        self._asked: dict[tuple[str, str], float] = {}
        self._wall = WallClock()
        self._said: set[str] = set()
        self._others = trio.Event()  # other entries are configured
        self._owners: dict[str, str] = {}  # of each model that is offered, the entry
        self._unseen = {peer.name for peer in self._peers}  # at which nobody has looked yet
        self._looked = trio.Event()

    def compose(self, config: GatewayConfig) -> GatewayConfig:
        """With the models that they have, as far as that is known. `config`: as its file has it."""
        if not config.peers:
            return config
        composed, notes = with_peers(config, self._listings)
        self._owners = {m.name: m.peer for m in composed.models if m.peer is not None}
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                log.warning("%s", note)
        return composed

    def rows(self) -> list[PeerRow]:
        """In the order of the configuration."""
        return [self._row(peer, url) for peer in self._peers for url in peer.options.urls]

    def _row(self, peer: PeerConfig, url: str) -> PeerRow:
        at = peer.name, url
        listed = self._listings.get(peer.name, {}).get(url, ())
        names = (model.name for model in listed if self._owners.get(model.name) == peer.name)
        asked = self._asked.get(at)
        return PeerRow(
            peer.name, url, self._faults.get(at), tuple(names),
            None if asked is None else round(self._wall.unix(asked), 2),
        )  # fmt: skip

    def go_by(self, config: GatewayConfig) -> None:
        """Another configuration is in force."""
        if config.peers != self._peers:
            names = {peer.name for peer in config.peers}
            self._listings = {n: had for n, had in self._listings.items() if n in names}
            self._peers = config.peers
            self._others.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask them until cancelled. Started once all have answered, or after FIRST_LOOK_S."""
        async with beside(self._follow_all):
            if self._peers:
                with trio.move_on_after(FIRST_LOOK_S):
                    await self._looked.wait()
            task_status.started()
            await trio.sleep_forever()

    async def _follow_all(self) -> None:
        while True:
            self._others = trio.Event()
            async with trio.open_nursery() as nursery:
                for peer in self._peers:
                    nursery.start_soon(self._follow, peer)
                await self._others.wait()
                nursery.cancel_scope.cancel(reason="other gateways are configured")

    async def _follow(self, peer: PeerConfig) -> None:
        """One entry, for good."""
        try:
            clients = {url: _client(peer, url) for url in peer.options.urls}
        except OSError as error:
            log.error("%s: its models are not listed: ca_file: %s", peer.name, error)
            self._note_looked(peer)
            return
        interval_s = peer.options.health_interval_s
        wait_s = min(AGAIN_S, interval_s)
        try:
            while True:
                await self._look(peer, clients)
                await self.take_over()
                self._tell_states(self._states())
                self._note_looked(peer)
                if any((peer.name, url) in self._faults for url in clients):
                    await trio.sleep(wait_s)
                    wait_s = min(2 * wait_s, interval_s)
                else:
                    wait_s = min(AGAIN_S, interval_s)
                    await trio.sleep(interval_s)
        finally:
            for client in clients.values():
                await client.aclose()

    def _note_looked(self, peer: PeerConfig) -> None:
        self._unseen.discard(peer.name)
        if not self._unseen:
            self._looked.set()

    async def _look(self, peer: PeerConfig, clients: Mapping[str, RemoteEngine]) -> None:
        async with trio.open_nursery() as nursery:
            for url, client in clients.items():
                nursery.start_soon(partial(self._ask, peer, url, client))

    async def _ask(self, peer: PeerConfig, url: str, client: RemoteEngine) -> None:
        answer = await client.ask("GET", TARGET, LOOK_S)
        known, at = self._listings.setdefault(peer.name, {}), (peer.name, url)
        self._asked[at] = trio.current_time()
        if answer is not None and answer.status in _BUSY and url in known:
            return  # that is no news of its models
        try:
            known[url] = _listing_of(answer)
        except ValueError as error:
            is_news = at not in self._faults
            self._faults[at] = str(error)
            if is_news:
                kept = "those that it had stay listed" if url in known else "none is listed yet"
                log.warning("%s: %s does not say which models it has: %s; %s, and it is asked "
                            "again", peer.name, url, error, kept)  # fmt: skip
        else:
            if self._faults.pop(at, None) is not None:
                log.info("%s: %s says now which models it has", peer.name, url)

    def _states(self) -> dict[str, ModelLoad]:
        """Of the models of all of those that answer."""
        loads = dict[str, list[ModelLoad]]()
        for name, listings in self._listings.items():
            for url, models in listings.items():
                for model in models if (name, url) not in self._faults else ():
                    if self._owners.get(model.name) == name:
                        loads.setdefault(model.name, []).append(model.load)
        return {name: furthest(found) for name, found in loads.items()}


def _client(peer: PeerConfig, url: str) -> RemoteEngine:
    """It wakes no machine: to look must cost nothing."""
    # Imported here: most configurations name nothing elsewhere.
    from trio_gateway.engine.clients.remote import RemoteEngine

    options = msgspec.structs.replace(
        peer.options, urls=(url,), sites=(SiteOptions(url=url),), wake=None, wake_command=()
    )
    return RemoteEngine(url, options)


def _listing_of(answer: Answer | None) -> tuple[ListedModel, ...]:
    """Raises ValueError: it is none; with the reason."""
    if answer is None:
        raise ValueError("it does not answer")
    if answer.status in KEY_REFUSED:
        raise ValueError(f"it refuses the key (HTTP {answer.status}); check `api_key`")
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}")
    return read_listing(answer.body)
