"""Loads what is wanted at the start, one after the other, while requests are served already."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.lease import LeaseRefused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.scheduling.events import Refusal
from trio_gateway.models.names import ContextNotFound, ModelNames, ModelNotFound

log = logging.getLogger(__name__)


async def preload(wanted: Sequence[str], names: ModelNames, manager: EngineManager) -> None:
    """As batch requests, so that others go first. What would make another one leave is left out:
    the first in the list stays."""
    for name in wanted:
        try:
            found = names.wanted(names.find_named(name))
        except (ModelNotFound, ContextNotFound) as error:
            log.warning("%s is not preloaded: %s", name, error)
            continue
        need = max(found.at_least, 1)
        preview = manager.overview.preview(found.model.name, need, need)
        if preview.evicts:
            leaves = ", ".join(map(str, preview.evicts))
            log.warning("%s is not preloaded: %s would have to leave", name, leaves)
            continue
        try:
            async with manager.lease(found.model, need, priority=Priority.BATCH) as lease:
                log.info("%s is preloaded", lease.engine.key)
        except LeaseRefused as refused:
            if refused.reject.refusal is Refusal.SHUTTING_DOWN:
                return
            log.warning("%s is not preloaded: %s", name, refused)


def to_preload(config: GatewayConfig, before: GatewayConfig | None = None) -> list[str]:
    """The names of what is wanted, in order; without what was so `before`."""
    wanted = [*config.server.preload, *(model.name for model in config.models if model.preload)]
    return wanted if before is None else [n for n in wanted if n not in to_preload(before)]
