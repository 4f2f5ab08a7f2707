"""Clusters: those that the configuration names, and what this gateway has on them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.engine.cluster.application import application_of, names_begin, owner_of
from trio_gateway.engine.cluster.process import ClusterApplication
from trio_gateway.engine.cluster.serve_api import ClusterRefuses, ClusterUnreachable, ServeApi
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

AGAIN_S = 30.0


class Clusters:
    """Close it with `close`.

    Args:
        source: the configuration's file, by which this gateway knows what is its own.
    """

    def __init__(self, source: Path) -> None:
        self.owner = owner_of(socket.gethostname(), str(source.absolute()))
        self._apis: list[tuple[EngineOptions, ServeApi]] = []
        self._begun = set[str]()  # in this run

    def application(self, key: VariantKey, variant: VariantConfig) -> ClusterApplication:
        cluster = variant.options.cluster
        assert cluster is not None, "it runs on a cluster"
        application = application_of(self.owner, key, variant)
        self._begun.add(application.name)
        return ClusterApplication(application, lambda: self.api(variant.options), cluster.serve_url)

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

    async def look_through(
        self,
        variants: Mapping[VariantKey, VariantConfig],
        adopt: Callable[[VariantKey], Awaitable[None]],
    ) -> None:
        """Take out what an earlier run has left and no variant wants, and adopt the rest of it. A
        cluster that cannot be reached is asked again until it can."""
        wanted = {application_of(self.owner, k, v).name: k for k, v in variants.items()}

        async def look(api: ServeApi) -> None:
            while True:
                try:
                    there = (await api.read()).of(names_begin(self.owner))
                    unwanted = [n for n in there if n not in wanted and n not in self._begun]
                    if unwanted:
                        log.info("%s: takes out %s", api.address, ", ".join(unwanted))
                        await api.change({}, unwanted)
                except (ClusterUnreachable, ClusterRefuses) as error:
                    log.warning("what is left on it is looked for again: %s", error)
                    await trio.sleep(AGAIN_S)
                else:
                    break
            for name in there:
                if name in wanted:
                    await adopt(wanted[name])

        async with trio.open_nursery() as nursery:
            for api in {id(api): api for api in map(self._api_of, variants.values())}.values():
                if api is not None:
                    nursery.start_soon(look, api)

    def _api_of(self, variant: VariantConfig) -> ServeApi | None:
        try:
            return self.api(variant.options)
        except OSError as error:
            log.warning("%s", error)  # each start says it as well
            return None

    def close(self) -> None:
        for _, api in self._apis:
            api.close()
