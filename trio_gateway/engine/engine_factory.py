"""EngineFactory: makes the engine of a variant, with all that it is to know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.configured import Configured
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.slot_owners import SlotOwners
from trio_gateway.engine.kv.slots import EngineKv
from trio_gateway.engine.lease import LeaseRequest, waiting_prompts
from trio_gateway.engine.on_clusters import OnClusters
from trio_gateway.engine.others import Others
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.placement import placed
from trio_gateway.engine.process.process import Launcher
from trio_gateway.engine.scheduling.elsewhere_events import EngineWaking
from trio_gateway.engine.scheduling.events import Event, VariantKey

log = logging.getLogger(__name__)


class EngineFactory:
    """`requests`: those that wait or are served, by their tickets."""

    def __init__(
        self,
        configured: Configured,
        launch: Launcher,
        kv: KvCarryover,
        overview: Overview,
        requests: Mapping[int, LeaseRequest],
        memory_of_group: Callable[[int], int | None] | None,
        others: Others | None,
        on_clusters: OnClusters,
    ) -> None:
        self._configured, self._launch, self._kv = configured, launch, kv
        self._overview, self._requests = overview, requests
        self._memory_of_group, self._others = memory_of_group, others
        self._on_clusters = on_clusters
        self._ports_in_use: set[int] = set()

    def make(
        self, number: int, key: VariantKey, devices: Sequence[str], report: Callable[[Event], None]
    ) -> Engine:
        """`devices`: those of its pool that it is to use; none: as it likes."""
        model, variant = self._configured.variants[key]
        kind = self._configured.kind(model)
        owners = None
        if self._configured.keeps_apart and kind.has_slots:
            owners = SlotOwners(is_trusted=kind.keeps_prompts_in_slots(variant))
            variant = kind.with_prompts_in_slots(variant)
        kv = self._kv_of(key, model, variant, owners)
        known = {} if self._others is None else self._others.devices
        elsewhere = self._on_clusters.elsewhere(key, variant)
        if variant.options.ways_to_wake:
            # Imported here: most engines run on a machine that is awake.
            from trio_gateway.engine.waking.machine import SleepingMachine, with_time_to_wake

            tell = partial(report, EngineWaking(number))
            elsewhere = SleepingMachine(variant.options, self._launch, tell)
            variant = with_time_to_wake(variant)
        engine = Engine(
            number,
            key,
            placed(variant, devices, known),
            report,
            launch=self._launch,
            engine_type=model.engine,
            kind=kind,
            secrets=self._configured.config.secret_variables,
            ports_in_use=self._ports_in_use,
            memory_of_group=self._memory_of_group,
            kv=kv,
            elsewhere=elsewhere,
        )
        engine.owners = owners
        return engine

    def _kv_of(
        self,
        key: VariantKey,
        model: ModelConfig,
        variant: VariantConfig,
        owners: SlotOwners | None,
    ) -> EngineKv | None:
        kind = self._configured.kind(model)
        if not (model.kv_carryover and kind.has_slots):
            return None
        if (fault := self._overview.carryover_fault(model, variant)) is not None:
            if self._kv.folder is not None:
                log.warning("%s: %s", key, fault)
            return None

        waiting = partial(waiting_prompts, self._requests, key.model)
        return EngineKv(self._kv, key, model, variant, kind, waiting, owners)
