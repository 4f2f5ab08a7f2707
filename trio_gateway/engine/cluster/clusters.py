"""Clusters: those that the configuration names, and what this gateway has on them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.engine.cluster.application import application_of, names_begin, owner_of
from trio_gateway.engine.cluster.holdings import Holdings, Left
from trio_gateway.engine.cluster.process import CLEAN_COMMAND, ClusterApplication
from trio_gateway.engine.cluster.serve_api import ClusterRefuses, ClusterUnreachable, ServeApi
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

AGAIN_S = 30.0
LAST_TRY_S = 2.0
Variants = Callable[[], Mapping[VariantKey, VariantConfig]]
Adopt = Callable[[VariantKey], Awaitable[None]]


class Clusters:
    """Close it with `close`.

    Args:
        source: the configuration's file, by which this gateway knows what is its own.
    """

    def __init__(self, source: Path) -> None:
        self.owner = owner_of(socket.gethostname(), str(source.absolute()))
        self._apis: list[tuple[EngineOptions, ServeApi]] = []
        self._news = trio.Event()
        self._holdings = Holdings[ServeApi](lambda: self._news.set())

    def application(self, key: VariantKey, variant: VariantConfig) -> ClusterApplication:
        cluster = variant.options.cluster
        assert cluster is not None, "it runs on a cluster"
        application = application_of(self.owner, key, variant)
        api = partial(self.api, variant.options)
        return ClusterApplication(application, api, cluster.serve_url, self._holdings)

    def api(self, options: EngineOptions) -> ServeApi:
        """One for all that reach the same cluster in the same way: they write in turns.

        Raises:
            OSError: `ca_file` cannot be used.
        """
        assert options.cluster is not None, "it runs on a cluster"
        cluster = options.cluster
        way = EngineOptions(
            cluster=type(cluster)(address=cluster.address, headers=cluster.headers),
            ca_file=options.ca_file,
            verify_tls=options.verify_tls,
            connect_timeout_s=options.connect_timeout_s,
        )
        found = next((api for known, api in self._apis if known == way), None)
        if found is None:
            found = ServeApi(way)
            self._apis.append((way, found))
        return found

    async def look_through(self, configured: Variants, adopt: Adopt) -> None:
        """Take out what an earlier run has left and no variant wants, and adopt the rest of it. A
        cluster that cannot be reached is asked again until it can.

        Args:
            configured: what is in force at that moment.
        """
        async with trio.open_nursery() as nursery:
            for api in {id(api): api for api in map(self._api_of, configured().values())}.values():
                if api is not None:
                    nursery.start_soon(self._look, api, configured, adopt)

    async def _look(self, api: ServeApi, configured: Variants, adopt: Adopt) -> None:
        while True:
            try:
                there = (await api.read()).of(names_begin(self.owner))
                wanted = {application_of(self.owner, k, v).name: k for k, v in configured().items()}
                await self._remove(api, [name for name in there if name not in wanted])
            except (ClusterUnreachable, ClusterRefuses) as error:
                log.warning("what is left on it is looked for again: %s", error)
                await trio.sleep(AGAIN_S)
            else:
                break
        for name in there:
            if name in wanted:
                await adopt(wanted[name])

    async def _remove(self, api: ServeApi, names: Sequence[str]) -> None:
        if unwanted := [name for name in names if not self._holdings.holds(name)]:
            log.info("%s: takes out %s", api.address, ", ".join(unwanted))
            await api.change({}, unwanted, unless=self._holdings.holds)

    async def tidy(self) -> None:
        """Take out what engines of this run have left behind, as their cluster did not answer, as
        soon as it does. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            tidying = set[ServeApi]()
            while True:
                for api in self._left_behind() - tidying:
                    tidying.add(api)
                    nursery.start_soon(self._tidy, api, tidying)
                await self._news.wait()
                self._news = trio.Event()

    async def _tidy(self, api: ServeApi, tidying: set[ServeApi]) -> None:
        while self._left_at(api):
            await trio.sleep(AGAIN_S)  # a request may want it again, and takes it as it is
            try:
                await self._remove_left(api)
            except (ClusterUnreachable, ClusterRefuses) as error:
                log.info("what is left on it is looked for again: %s", error)
        tidying.discard(api)

    async def _remove_left(self, api: ServeApi) -> None:
        seen = self._left_at(api)
        await self._remove(api, [*seen])
        self._holdings.forget(seen)

    def _left_at(self, api: ServeApi) -> dict[str, Left[ServeApi]]:
        return {name: left for name, left in self._holdings.left.items() if left.place is api}

    def _left_behind(self) -> set[ServeApi]:
        return {left.place for left in self._holdings.left.values()}

    def _api_of(self, variant: VariantConfig) -> ServeApi | None:
        try:
            return self.api(variant.options)
        except OSError as error:
            log.warning("%s", error)  # each start says it as well
            return None

    async def close(self) -> None:
        """Take out what was left behind, where that is possible at once. All engines are over."""
        # Shielded so that a gateway that ends leaves nothing it could have taken along.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_TRY_S):
            async with trio.open_nursery() as nursery:
                for api in self._left_behind():
                    nursery.start_soon(self._try_last, api)
        for name, left in self._holdings.left.items():
            log.warning(
                "%s stays on the cluster at %s; %s", name, left.place.address, CLEAN_COMMAND
            )
        for _, api in self._apis:
            api.close()

    async def _try_last(self, api: ServeApi) -> None:
        try:
            await self._remove_left(api)
        except (ClusterUnreachable, ClusterRefuses) as error:
            log.debug("%s", error)
