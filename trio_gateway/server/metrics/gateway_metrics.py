"""GatewayMetrics: counts what happens, and tells all numbers that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trio_gateway.engine.happenings import EngineChanged, Refused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.budget import Budget
from trio_gateway.server.metrics.engine_tallies import EngineTallies
from trio_gateway.server.metrics.families import (
    MODEL,
    VARIANT,
    Counted,
    Measured,
    Spreading,
    of_engines,
    of_requests,
)
from trio_gateway.server.metrics.request_tallies import RequestTallies
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.traces.tally import Loss, TraceTally


class GatewayMetrics:
    """It counts from when it is made. `collect` is to run in the gateway's own thread, where
    nothing changes meanwhile."""

    def __init__(
        self,
        manager: EngineManager,
        book: RequestBook,
        budget: Budget,
        queue_timeout_s: float,
        traces: TraceTally,
    ) -> None:
        self._traces = traces
        self.queue_timeout_s = queue_timeout_s
        self._manager, self._book, self._budget = manager, book, budget
        self.requests, self.engines = RequestTallies(), EngineTallies()
        bus = manager.bus
        bus.listen(RequestRecord, self.requests.note)
        bus.listen(EngineChanged, self.engines.note)
        bus.listen(Refused, self.engines.note_refused)

    def collect(self) -> Iterator[Counted | Spreading | Measured]:
        yield from of_requests(self.requests)
        yield from of_engines(self.engines)
        yield from self._now()
        yield from self._carryover()
        yield from self._of_traces()

    def _now(self) -> Iterator[Measured]:
        overview = self._manager.overview
        yield Measured(
            "queue_requests", "Requests that wait for an engine.",
            ("model", "priority"), overview.queue_lengths(),
        )  # fmt: skip
        yield Measured(
            "queue_oldest_seconds", "For how long the oldest of a model's queue has waited.",
            MODEL, overview.longest_waits_s(),
        )  # fmt: skip
        yield Measured(
            "queue_timeout_seconds", "After so long a request is told that it waits in vain.",
            (), {(): self.queue_timeout_s},
        )  # fmt: skip
        stages = Counter(
            (record.model or "", record.stage.value) for record in self._book.live.values()
        )
        yield Measured(
            "live_requests", "Requests that are under way.",
            ("model", "stage"), {labels: float(n) for labels, n in stages.items()},
        )  # fmt: skip
        rows = overview.engines()
        states = Counter((row.model, row.variant, row.state) for row in rows)
        yield Measured(
            "engines", "Engines, by what they do.",
            (*VARIANT, "state"), {labels: float(n) for labels, n in states.items()},
        )  # fmt: skip
        leases: Counter[tuple[str, ...]] = Counter()
        slots: Counter[tuple[str, ...]] = Counter()
        for row in rows:
            leases[row.model, row.variant] += row.leases
            slots[row.model, row.variant] += row.slots or 0
        yield Measured("engine_leases", "Requests that engines work on.", VARIANT, leases)
        yield Measured("engine_slots", "Requests that engines can work on.", VARIANT, slots)
        yield Measured(
            "engines_in_back_off", "Variants that are left alone, as they failed.",
            VARIANT, {(key.model, key.variant): 1.0 for key in overview.backing_off()},
        )  # fmt: skip
        memory: dict[tuple[str, ...], float] = {}
        for pool in overview.pools():
            memory[pool.name, "used"] = float(pool.used_bytes)
            if pool.memory_bytes is not None:
                memory[pool.name, "limit"] = float(pool.memory_bytes)
        yield Measured(
            "pool_memory_bytes", "Memory of a pool: its limit, and what its engines have of it.",
            ("pool", "kind"), memory,
        )  # fmt: skip
        held = self._budget.facts()
        yield Measured(
            "held_bytes", "Bytes of clients that the gateway holds.", ("where",),
            {
                ("memory",): float(held["buffered_bytes"]),
                ("files",): float(held["spooled_bytes"]),
            },
        )  # fmt: skip

    def _of_traces(self) -> Iterator[Counted]:
        yield Counted(
            "traces_sent", "Requests whose spans a collector has.",
            (), {(): float(self._traces.sent)},
        )  # fmt: skip
        yield Counted(
            "traces_lost", "Requests whose spans no collector has, and why.",
            ("reason",), {(why.value,): float(self._traces.lost[why]) for why in Loss},
        )  # fmt: skip

    def _carryover(self) -> Iterator[Counted | Measured]:
        kv = self._manager.kv
        counts = kv.counts
        for name, text, value in (
            ("kv_saves", "KV caches that were saved.", counts.saves),
            ("kv_saved_tokens", "Tokens of saved KV caches.", counts.saved_tokens),
            ("kv_failed_saves", "KV caches that could not be saved.", counts.failed_saves),
            ("kv_restores", "KV caches that were restored.", counts.restores),
            ("kv_restored_tokens", "Tokens of restored KV caches.", counts.restored_tokens),
            ("kv_failed_restores", "Restores that failed.", counts.failed_restores),
        ):
            yield Counted(name, text, (), {(): float(value)})
        yield Measured(
            "kv_unhelpful", "Models whose restores do not help, and are not made any more.",
            MODEL, {(model,): 1.0 for model in kv.unhelpful},
        )  # fmt: skip
        totals = kv.totals()
        files, held = totals["files"], totals["bytes"]
        assert isinstance(files, int)
        assert isinstance(held, int)
        yield Measured("kv_files", "Saved KV caches that are kept.", (), {(): float(files)})
        yield Measured("kv_file_bytes", "Bytes of those.", (), {(): float(held)})
