"""OnClusters: this gateway's engines on Ray clusters, those of its last run included."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.configured import Configured
from trio_gateway.engine.launch import Elsewhere
from trio_gateway.engine.lease import LeaseRefused, LeaseRequest
from trio_gateway.engine.scheduling.events import VariantKey

if TYPE_CHECKING:  # loaded with the first engine that needs it
    from trio_gateway.engine.cluster.clusters import Clusters

log = logging.getLogger(__name__)


class _Lease(Protocol):
    def __call__(
        self, model: ModelConfig, need: int, *, priority: Priority = ...
    ) -> LeaseRequest: ...


class OnClusters:
    """Run `run` in a task that outlives the engines.

    Args:
        lease: of a model and a need, as EngineManager has it.
    """

    def __init__(self, configured: Configured, lease: _Lease) -> None:
        self._configured, self._lease = configured, lease
        self._clusters: Clusters | None = None
        self._begun = trio.Event()  # the first that is on a cluster is known

    def elsewhere(self, key: VariantKey, variant: VariantConfig) -> Elsewhere | None:
        """Where its engine is to run; None: not on a cluster."""
        if variant.options.cluster is None:
            return None
        return self._known().application(key, variant)

    def _known(self) -> Clusters:
        if self._clusters is None:
            from trio_gateway.engine.cluster.clusters import Clusters

            self._clusters = Clusters(self._configured.config.source)
            self._begun.set()
        return self._clusters

    async def run(self) -> None:
        """Take over what an earlier run of this gateway has left there, if it was killed; then take
        out what this one has to leave."""
        try:
            async with trio.open_nursery() as nursery:
                if self._there():
                    nursery.start_soon(self._known().look_through, self._there, self._adopt)
                await self._begun.wait()
                nursery.start_soon(self._known().tidy)
        finally:
            if self._clusters is not None:
                await self._clusters.close()

    def _there(self) -> dict[VariantKey, VariantConfig]:
        configured = self._configured.variants
        return {k: v for k, (_, v) in configured.items() if v.options.cluster is not None}

    async def _adopt(self, key: VariantKey) -> None:
        if (found := self._configured.variants.get(key)) is None:
            return  # another configuration is in force by now
        # As any request, so that the engine is idle from now on, and stopped in its time.
        try:
            async with self._lease(found[0], found[1].holds, priority=Priority.BATCH) as lease:
                log.info("%s was found running, and goes on", lease.engine.key)
        except LeaseRefused as refused:
            log.warning("%s was found, and is not taken over: %s", key, refused)
