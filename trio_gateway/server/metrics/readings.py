"""What can be read off the gateway's parts at any time, as metrics: nothing has to count it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from trio_gateway.config.priority import Priority
from trio_gateway.engine.kv.carryover import KvCarryover, KvCounts
from trio_gateway.engine.overview import EngineRow, Overview
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.sites.circuit import CircuitState
from trio_gateway.server.dumps import DumpLoss
from trio_gateway.server.metrics.families import MODEL, VARIANT, Counted, Measured
from trio_gateway.server.metrics.parts import Parts
from trio_gateway.server.metrics.tallies import Labels
from trio_gateway.server.traces.tally import Loss


def readings(
    parts: Parts, queue_timeout_s: float, others: Mapping[str, int | None]
) -> Iterator[Counted | Measured]:
    """`others`: by pool, the bytes that other programs hold; what is not known is missing."""
    overview = parts.manager.overview
    backing_off = overview.backing_off()
    models: list[Labels] = [*dict.fromkeys((key.model,) for key in backing_off)]
    yield from _queue(overview, models)
    yield Measured(
        "queue_timeout_seconds", "After so long a request is told that it waits in vain.",
        (), {(): queue_timeout_s},
    )  # fmt: skip
    stages = Counter(
        (record.model or "", record.stage.value) for record in parts.book.live.values()
    )
    yield Measured(
        "live_requests", "Requests that are under way.",
        ("model", "stage"), {labels: float(n) for labels, n in stages.items()},
    )  # fmt: skip
    yield from _engines(overview, backing_off)
    yield from _memory(overview, others)
    held = parts.budget.facts()
    yield Measured(
        "held_bytes", "Bytes of clients that the gateway holds.", ("where",),
        {("memory",): float(held["buffered_bytes"]), ("files",): float(held["spooled_bytes"])},
    )  # fmt: skip
    yield Measured(
        "peer_answers", "Whether another gateway says which models it has.", ("peer", "url"),
        {(row.name, row.url): float(row.fault is None) for row in parts.peers.rows()},
    )  # fmt: skip
    yield from _carryover(parts.manager.kv, models)
    yield from _lost(parts)


def _queue(overview: Overview, models: list[Labels]) -> Iterator[Measured]:
    lengths = {(*model, priority.word): 0.0 for model in models for priority in Priority}
    yield Measured(
        "queue_requests", "Requests that wait for an engine.",
        ("model", "priority"), lengths | overview.queue_lengths(),
    )  # fmt: skip
    yield Measured(
        "queue_oldest_seconds", "For how long the oldest of a model's queue has waited.",
        MODEL, dict.fromkeys(models, 0.0) | overview.longest_waits_s(),
    )  # fmt: skip


def _engines(overview: Overview, backing_off: Mapping[VariantKey, bool]) -> Iterator[Measured]:
    rows = overview.engines()
    states = Counter((row.model, row.variant, row.state) for row in rows)
    yield Measured(
        "engines", "Engines, by what they do.",
        (*VARIANT, "state"), {labels: float(n) for labels, n in states.items()},
    )  # fmt: skip
    leases: dict[Labels, float] = {(key.model, key.variant): 0.0 for key in backing_off}
    slots = dict(leases)
    for row in rows:
        key = (row.model, row.variant)
        leases[key] = leases.get(key, 0.0) + row.leases
        slots[key] = slots.get(key, 0.0) + (row.slots or 0)
    yield Measured("engine_leases", "Requests that engines work on.", VARIANT, leases)
    yield Measured("engine_slots", "Requests that engines can work on.", VARIANT, slots)
    yield from _sites(rows)
    yield Measured(
        "engines_in_back_off", "Variants that are left alone, as they failed.",
        VARIANT, {(key.model, key.variant): float(is_so) for key, is_so in backing_off.items()},
    )  # fmt: skip


def _sites(engines: Sequence[EngineRow]) -> Iterator[Measured]:
    works, requests = dict[Labels, float](), dict[Labels, float]()
    for row in engines:
        for site in row.sites:
            labels = row.model, row.variant, site.url
            works[labels] = float(site.state == CircuitState.WORKS.value)
            requests[labels] = requests.get(labels, 0.0) + site.requests
    of = (*VARIANT, "url")
    yield Measured("remote_url_works", "Whether a URL of a remote model works.", of, works)
    yield Measured("remote_url_requests", "Requests that it works on.", of, requests)


def _memory(overview: Overview, others: Mapping[str, int | None]) -> Iterator[Measured]:
    memory: dict[Labels, float] = {}
    devices: dict[Labels, float] = {}
    for pool in overview.pools():
        memory[pool.name, "used"] = float(pool.used_bytes)
        memory[pool.name, "yielded"] = float(pool.yielded_bytes)
        for kind, size in (("limit", pool.memory_bytes), ("others", others.get(pool.name))):
            if size is not None:
                memory[pool.name, kind] = float(size)
        for device in pool.devices:
            known = ("limit", device.memory_bytes), ("others", device.other_bytes)
            for kind, size in (("used", device.used_bytes), *known):
                if size is not None:
                    devices[pool.name, device.name, kind] = float(size)
    yield Measured(
        "pool_memory_bytes",
        "Memory of a pool: its limit, what its engines have of it, what is kept free for other "
        "programs, and what those hold.",
        ("pool", "kind"), memory,
    )  # fmt: skip
    yield Measured(
        "device_memory_bytes", "The same of each device that a pool names.",
        ("pool", "device", "kind"), devices,
    )  # fmt: skip


def _carryover(kv: KvCarryover, models: list[Labels]) -> Iterator[Counted | Measured]:
    counts = {model: KvCounts() for model in models}
    counts |= {(model,): known for model, known in kv.counts.items()}
    for field, name, text in (
        ("saves", "kv_saves", "KV caches that were saved."),
        ("saved_tokens", "kv_saved_tokens", "Tokens of saved KV caches."),
        ("saved_bytes", "kv_saved_bytes", "Bytes of saved KV caches."),
        ("failed_saves", "kv_failed_saves", "KV caches that could not be saved."),
        ("restores", "kv_restores", "KV caches that were restored."),
        ("restored_tokens", "kv_restored_tokens", "Tokens of restored KV caches."),
        ("restored_bytes", "kv_restored_bytes", "Bytes of restored KV caches."),
        ("failed_restores", "kv_failed_restores", "Restores that failed."),
        ("unhelpful_restores", "kv_unhelpful_restores", "Restores that saved no reading."),
    ):
        values = {model: float(getattr(known, field)) for model, known in counts.items()}
        yield Counted(name, text, MODEL, values)
    yield Measured(
        "kv_unhelpful", "Models whose restores do not help, and are not made any more.",
        MODEL, {model: float(model[0] in kv.unhelpful) for model in models},
    )  # fmt: skip
    totals = kv.totals()
    files, held = totals["files"], totals["bytes"]
    assert isinstance(files, int)
    assert isinstance(held, int)
    yield Measured("kv_files", "Saved KV caches that are kept.", (), {(): float(files)})
    yield Measured("kv_file_bytes", "Bytes of those.", (), {(): float(held)})


def _lost(parts: Parts) -> Iterator[Counted]:
    """What was to be kept or shown, and was not: a slow disk or reader costs no request."""
    feed, dumps, traces = parts.feed, parts.dumps, parts.traces
    for name, text, value in (
        (
            "feed_readers_behind",
            "Readers of the feed that began anew, being too slow.",
            feed.behind,
        ),
        ("feed_events_dropped", "Events of the feed that readers did not get.", feed.missed),
        ("log_lines_dropped", "Lines that readers of logs did not get.", parts.logs.missed),
        ("history_requests_dropped", "Requests that the history lacks.", parts.history.lost),
        ("dumps_written", "Dumps of requests.", 0 if dumps is None else dumps.written),
        ("traces_sent", "Requests whose spans a collector has.", traces.sent),
    ):
        yield Counted(name, text, (), {(): float(value)})
    yield Counted(
        "dumps_dropped", "Dumps that were not written, and why.", ("reason",),
        {(why.value,): 0.0 if dumps is None else float(dumps.lost[why]) for why in DumpLoss},
    )  # fmt: skip
    yield Counted(
        "traces_lost", "Requests whose spans no collector has, and why.",
        ("reason",), {(why.value,): float(traces.lost[why]) for why in Loss},
    )  # fmt: skip
