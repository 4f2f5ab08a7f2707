"""EngineNews: puts on the bus what is decided about engines, and what they report."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from trio_gateway.bus import Bus
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.happenings import Change, EngineChanged, MemorySeen, Refused
from trio_gateway.engine.scheduling.events import (
    Cause,
    EngineExited,
    EngineFailed,
    EngineMeasured,
    EngineReady,
    Event,
    Reject,
    VariantKey,
)


class EngineNews:
    """`engines`: those that are not gone, by their numbers. `pools`: by the models' names."""

    def __init__(self, bus: Bus, engines: Mapping[int, Engine], pools: Mapping[str, str]) -> None:
        self._bus, self._engines, self._pools = bus, engines, pools

    def tell(
        self,
        engine: int,
        change: Change,
        reason: str = "",
        *,
        load_s: float | None = None,
        evicted: tuple[VariantKey, ...] = (),
        timed_out: bool = False,
        cause: Cause | None = None,
        killed: bool = False,
    ) -> None:
        key, now = self._engines[engine].key, trio.current_time()
        pool = self._pools[key.model]
        self._bus.publish(
            EngineChanged(
                engine, key, pool, change, now, reason, load_s, evicted, timed_out, cause, killed
            )
        )

    def reported(self, event: Event) -> None:
        """By an engine, which is still among the others."""
        match event:
            case EngineReady(number):
                load_s = trio.current_time() - self._engines[number].started_at
                self.tell(number, Change.READY, load_s=load_s)
            case EngineFailed(number, reason):
                self.tell(number, Change.FAILED, reason, timed_out=event.timed_out)
            case EngineExited(number, reason):
                self.tell(number, Change.GONE, reason, killed=self._engines[number].was_killed)
            case EngineMeasured(number, memory_bytes):
                self._bus.publish(MemorySeen(number, memory_bytes))

    def refused(self, model: str, reject: Reject) -> None:
        self._bus.publish(Refused(model, reject.refusal.name.lower(), reject.message))
